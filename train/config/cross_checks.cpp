#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "train/config/schema.h"

namespace carousel {
namespace {

using Given = std::function<bool(std::string_view)>;

/// An error unless `divisor` divides `n`.
std::string unless_divisible(std::string_view name, std::int64_t n, std::string_view divisor_name,
                             std::int64_t divisor) {
  if (n % divisor == 0) return "";
  return fmt::format("{} = {} is not divisible by {} = {}", name, n, divisor_name, divisor);
}

void add_xlstm_large(std::vector<CrossCheck>& all) {
  const auto width = [](const char* name, double XlstmLargeConfig::*factor) {
    return [name, factor](const Config& c, const Given&) -> std::string {
      if (c.model.family != ModelFamily::kXlstmLarge) return "";
      const XlstmLargeConfig& m = c.model.xlstm_large;
      if (m.embedding_dim % m.num_heads != 0) return "";  // the check of embedding_dim says so
      const double exact = static_cast<double>(m.embedding_dim) * m.*factor;
      if (exact < 1.0 || exact != std::floor(exact)) {
        return fmt::format("model.embedding_dim = {} times model.{} = {} is {}, not a whole number",
                           m.embedding_dim, name, m.*factor, exact);
      }
      return unless_divisible(fmt::format("model.embedding_dim times model.{}", name),
                              static_cast<std::int64_t>(exact), "model.num_heads", m.num_heads);
    };
  };
  all.push_back({{"model.embedding_dim", "model.num_heads"},
                 [](const Config& c, const Given&) -> std::string {
                   if (c.model.family != ModelFamily::kXlstmLarge) return "";
                   const XlstmLargeConfig& m = c.model.xlstm_large;
                   return unless_divisible("model.embedding_dim", m.embedding_dim,
                                           "model.num_heads", m.num_heads);
                 }});
  all.push_back({{"model.qk_dim_factor", "model.embedding_dim", "model.num_heads"},
                 width("qk_dim_factor", &XlstmLargeConfig::qk_dim_factor)});
  all.push_back({{"model.v_dim_factor", "model.embedding_dim", "model.num_heads"},
                 width("v_dim_factor", &XlstmLargeConfig::v_dim_factor)});
}

std::string check_slstm_at(const Config& c, const Given&) {
  if (c.model.family != ModelFamily::kXlstm) return "";
  std::vector<std::int64_t> at = c.model.xlstm.slstm_at;
  std::sort(at.begin(), at.end());
  if (const auto twice = std::adjacent_find(at.begin(), at.end()); twice != at.end()) {
    return fmt::format("model.slstm_at names block {} twice", *twice);
  }
  if (!at.empty() && at.back() >= c.model.xlstm.num_blocks) {
    return fmt::format(
        "model.slstm_at names block {}, but model.num_blocks = {} (blocks count "
        "from 0)",
        at.back(), c.model.xlstm.num_blocks);
  }
  return "";
}

void add_xlstm(std::vector<CrossCheck>& all) {
  all.push_back({{"model.slstm_at", "model.num_blocks"}, check_slstm_at});
  all.push_back({{"model.embedding_dim", "model.slstm.num_heads", "model.slstm_at"},
                 [](const Config& c, const Given&) -> std::string {
                   const XlstmConfig& m = c.model.xlstm;
                   if (c.model.family != ModelFamily::kXlstm || m.slstm_at.empty()) return "";
                   return unless_divisible("model.embedding_dim", m.embedding_dim,
                                           "model.slstm.num_heads", m.slstm.num_heads);
                 }});
  for (const auto& [name, member] :
       {std::pair{"num_heads", &XlstmConfig::Mlstm::num_heads},
        std::pair{"qkv_proj_blocksize", &XlstmConfig::Mlstm::qkv_proj_blocksize}}) {
    const std::string key = fmt::format("model.mlstm.{}", name);
    all.push_back({{"model.embedding_dim", "model.mlstm.proj_factor", key},
                   [key, member = member](const Config& c, const Given&) -> std::string {
                     if (c.model.family != ModelFamily::kXlstm) return "";
                     const XlstmConfig& m = c.model.xlstm;
                     const double exact =
                         static_cast<double>(m.embedding_dim) * m.mlstm.proj_factor;
                     const auto inner = static_cast<std::int64_t>(std::ceil(exact / 64.0)) * 64;
                     return unless_divisible(
                         "the inner width of the mLSTM (model.embedding_dim times "
                         "model.mlstm.proj_factor, rounded up to 64)",
                         inner, key, m.mlstm.*member);
                   }});
  }
  all.push_back(
      {{"model.context_length", "data.seq_len"}, [](const Config& c, const Given&) -> std::string {
         if (c.model.family != ModelFamily::kXlstm ||
             c.model.xlstm.context_length >= c.data.seq_len) {
           return "";
         }
         return fmt::format("model.context_length = {} is less than data.seq_len = {}",
                            c.model.xlstm.context_length, c.data.seq_len);
       }});
}

void add_data(std::vector<CrossCheck>& all) {
  all.push_back(
      {{"data.train", "data.task.name"}, [](const Config& c, const Given&) -> std::string {
         if (c.data.task || !c.data.train.empty()) return "";
         return "no training data: give data.train (files) or data.task (synthetic)";
       }});
  all.push_back({{"data.task.name", "data.task.train_lengths", "data.task.val_lengths"},
                 [](const Config& c, const Given& given) -> std::string {
                   if (!c.data.task || given("data.task.name")) return "";
                   return "missing key 'name' in data.task";
                 }});
  for (const char* key : {"data.train", "data.val", "data.tokenizer", "data.document_boundaries",
                          "data.document_token"}) {
    all.push_back({{key}, [key](const Config& c, const Given& given) -> std::string {
                     if (!c.data.task || !given(key)) return "";
                     return fmt::format(
                         "{} has no meaning with data.task, which makes its own data", key);
                   }});
  }
  all.push_back({{"data.task.train_lengths", "data.seq_len"},
                 [](const Config& c, const Given&) -> std::string {
                   if (!c.data.task || c.data.task->train_lengths.max <= c.data.seq_len) return "";
                   return fmt::format(
                       "data.task.train_lengths go up to {}, beyond data.seq_len = {}",
                       c.data.task->train_lengths.max, c.data.seq_len);
                 }});
  all.push_back(
      {{"data.tokenizer", "model.vocab_size"}, [](const Config& c, const Given&) -> std::string {
         if (c.data.tokenizer != "none" || c.model.vocab_size) return "";
         return "data.tokenizer: none does not tell the number of tokens; give "
                "model.vocab_size";
       }});
  all.push_back({{"data.document_token", "model.vocab_size"},
                 [](const Config& c, const Given&) -> std::string {
                   if (!c.data.document_token || !c.model.vocab_size ||
                       *c.data.document_token < *c.model.vocab_size) {
                     return "";
                   }
                   return fmt::format("data.document_token = {} is outside model.vocab_size = {}",
                                      *c.data.document_token, *c.model.vocab_size);
                 }});
}

void add_training(std::vector<CrossCheck>& all) {
  all.push_back(
      {{"micro_batch_size", "data.batch_size"}, [](const Config& c, const Given&) -> std::string {
         if (!c.micro_batch_size) return "";
         return unless_divisible("data.batch_size", c.data.batch_size, "micro_batch_size",
                                 *c.micro_batch_size);
       }});
  all.push_back({{"schedule.warmup", "steps"}, [](const Config& c, const Given&) -> std::string {
                   if (c.schedule.warmup <= c.steps) return "";
                   return fmt::format("schedule.warmup = {} is longer than the run, steps = {}",
                                      c.schedule.warmup, c.steps);
                 }});
  all.push_back({{"schedule.decay_steps", "schedule.warmup", "schedule.type"},
                 [](const Config& c, const Given&) -> std::string {
                   const auto type = c.schedule.type;
                   if (type != ScheduleType::kLinear && type != ScheduleType::kCosine) return "";
                   if (!c.schedule.decay_steps || *c.schedule.decay_steps > c.schedule.warmup) {
                     return "";
                   }
                   return fmt::format(
                       "schedule.decay_steps = {} ends the decay before "
                       "schedule.warmup = {} does",
                       *c.schedule.decay_steps, c.schedule.warmup);
                 }});
  all.push_back({{"eval.every", "data.val"}, [](const Config& c, const Given&) -> std::string {
                   if (c.eval.every == 0 || c.data.task || c.data.val.given()) return "";
                   return fmt::format(
                       "eval.every = {} needs validation data; give data.val, files "
                       "or a fraction of the training data",
                       c.eval.every);
                 }});
  all.push_back({{"sample.every", "data.tokenizer", "data.task.name"},
                 [](const Config& c, const Given&) -> std::string {
                   if (c.sample.every == 0 || (!c.data.task && c.data.tokenizer != "none")) {
                     return "";
                   }
                   return "sample.every needs a tokenizer, and this data has none";
                 }});
  all.push_back(
      {{"sample.prompt", "sample.every"}, [](const Config& c, const Given&) -> std::string {
         if (c.sample.every == 0 || !c.sample.prompt.empty()) return "";
         return "sample.prompt is empty; samples continue at least one token";
       }});
  all.push_back({{"name"}, [](const Config& c, const Given&) -> std::string {
                   constexpr std::string_view kAllowed =
                       "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
                   if (!c.name.empty() && c.name.front() != '.' &&
                       c.name.find_first_not_of(kAllowed) == std::string::npos) {
                     return "";
                   }
                   return fmt::format(
                       "name '{}' cannot name a directory: use letters, digits, '_', "
                       "'-' and, but at the start, '.'",
                       c.name);
                 }});
}

}  // namespace

const std::vector<CrossCheck>& cross_checks() {
  static const std::vector<CrossCheck> checks = [] {
    std::vector<CrossCheck> all;
    add_xlstm_large(all);
    add_xlstm(all);
    add_data(all);
    add_training(all);
    return all;
  }();
  return checks;
}

}  // namespace carousel
