// What must hold between keys. Each function returns the text of the error, or nothing.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "train/config/schema.h"

namespace carousel {
namespace {

using Given = std::function<bool(std::string_view)>;

std::string unless_divisible(std::string_view name, std::int64_t n, std::string_view divisor_name,
                             std::int64_t divisor) {
  if (n % divisor == 0) return "";
  return fmt::format("{} = {} is not divisible by {} = {}", name, n, divisor_name, divisor);
}

// --- model: xlstm_large -------------------------------------------------------------------------

std::string large_width_and_heads(const Config& c, const Given&) {
  if (c.model.family != ModelFamily::kXlstmLarge) return "";
  const XlstmLargeConfig& m = c.model.xlstm_large;
  return unless_divisible("model.embedding_dim", m.embedding_dim, "model.num_heads", m.num_heads);
}

template <double XlstmLargeConfig::*Factor>
std::string large_head_width(std::string_view key, const Config& c) {
  const XlstmLargeConfig& m = c.model.xlstm_large;
  if (c.model.family != ModelFamily::kXlstmLarge || m.embedding_dim % m.num_heads != 0) return "";
  const double width = static_cast<double>(m.embedding_dim) * m.*Factor;
  const std::string name = fmt::format("model.embedding_dim = {} times {}", m.embedding_dim, key);
  if (width < 1.0 || width != std::floor(width)) {
    return fmt::format("{} = {} is {}, not a whole number", name, m.*Factor, width);
  }
  return unless_divisible(name, static_cast<std::int64_t>(width), "model.num_heads", m.num_heads);
}

std::string large_qk_width(const Config& c, const Given&) {
  return large_head_width<&XlstmLargeConfig::qk_dim_factor>("model.qk_dim_factor", c);
}

std::string large_v_width(const Config& c, const Given&) {
  return large_head_width<&XlstmLargeConfig::v_dim_factor>("model.v_dim_factor", c);
}

// --- model: xlstm -------------------------------------------------------------------------------

std::string slstm_positions(const Config& c, const Given&) {
  if (c.model.family != ModelFamily::kXlstm) return "";
  const XlstmConfig& m = c.model.xlstm;
  std::vector<std::int64_t> at = m.slstm_at;
  std::sort(at.begin(), at.end());
  if (const auto twice = std::adjacent_find(at.begin(), at.end()); twice != at.end()) {
    return fmt::format("model.slstm_at names block {} twice", *twice);
  }
  if (at.empty() || at.back() < m.num_blocks) return "";
  return fmt::format("model.slstm_at names block {}, but there are model.num_blocks = {}, from 0",
                     at.back(), m.num_blocks);
}

std::string slstm_width_and_heads(const Config& c, const Given&) {
  const XlstmConfig& m = c.model.xlstm;
  if (c.model.family != ModelFamily::kXlstm || m.slstm_at.empty()) return "";
  return unless_divisible("model.embedding_dim", m.embedding_dim, "model.slstm.num_heads",
                          m.slstm.num_heads);
}

std::string mlstm_inner_width(const Config& c, std::string_view key, std::int64_t divisor) {
  const XlstmConfig& m = c.model.xlstm;
  const auto blocks = static_cast<std::int64_t>(m.slstm_at.size());
  if (c.model.family != ModelFamily::kXlstm || blocks >= m.num_blocks) return "";
  const double exact = static_cast<double>(m.embedding_dim) * m.mlstm.proj_factor;
  return unless_divisible("model.embedding_dim times model.mlstm.proj_factor, rounded up to 64,",
                          static_cast<std::int64_t>(std::ceil(exact / 64.0)) * 64, key, divisor);
}

std::string mlstm_heads(const Config& c, const Given&) {
  return mlstm_inner_width(c, "model.mlstm.num_heads", c.model.xlstm.mlstm.num_heads);
}

std::string mlstm_projection_blocks(const Config& c, const Given&) {
  return mlstm_inner_width(c, "model.mlstm.qkv_proj_blocksize",
                           c.model.xlstm.mlstm.qkv_proj_blocksize);
}

std::string context_holds_sequences(const Config& c, const Given&) {
  const std::int64_t context = c.model.xlstm.context_length;
  if (c.model.family != ModelFamily::kXlstm || context >= c.data.seq_len) return "";
  return fmt::format("model.context_length = {} is less than the length of sequences, {}", context,
                     c.data.seq_len);
}

// --- data ---------------------------------------------------------------------------------------

std::string some_data(const Config& c, const Given&) {
  if (c.data.task || !c.data.train.empty()) return "";
  return "no training data: give data.train (files) or data.task (synthetic)";
}

std::string task_has_a_name(const Config& c, const Given& given) {
  if (!c.data.task || given("data.task.name")) return "";
  return "missing key 'name' in data.task";
}

std::string ids_have_a_vocabulary(const Config& c, const Given&) {
  if (c.data.task || c.data.tokenizer != "none" || c.model.vocab_size) return "";
  return "data.tokenizer none does not tell the number of tokens; give model.vocab_size";
}

std::string document_token_exists(const Config& c, const Given&) {
  const auto token = c.data.document_token;
  if (!token || !c.model.vocab_size || *token < *c.model.vocab_size) return "";
  return fmt::format("data.document_token = {} is outside model.vocab_size = {}", *token,
                     *c.model.vocab_size);
}

// --- the run ------------------------------------------------------------------------------------

std::string name_is_a_directory(const Config& c, const Given&) {
  constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
  if (!c.name.empty() && c.name.front() != '.' &&
      c.name.find_first_not_of(kAllowed) == std::string::npos) {
    return "";
  }
  return fmt::format(
      "name '{}' cannot name a directory: use letters, digits, '_', '-' and, but not first, '.'",
      c.name);
}

std::string output_dir_is_given(const Config& c, const Given&) {
  return c.output_dir.empty() ? "output_dir is empty; leave the key out for runs/<name>" : "";
}

std::string micro_batches(const Config& c, const Given&) {
  if (!c.micro_batch_size) return "";
  return unless_divisible("data.batch_size", c.data.batch_size, "micro_batch_size",
                          *c.micro_batch_size);
}

std::string tf32_is_for_float32(const Config& c, const Given&) {
  if (!c.tf32 || c.precision == DType::kF32) return "";
  return fmt::format("tf32 concerns float32 products, but precision is {}; leave it out",
                     name_of(c.precision));
}

std::string warmup_within_run(const Config& c, const Given&) {
  if (c.schedule.warmup <= c.steps) return "";
  return fmt::format("schedule.warmup = {} is longer than the run, steps = {}", c.schedule.warmup,
                     c.steps);
}

std::string decay_after_warmup(const Config& c, const Given&) {
  const ScheduleConfig& s = c.schedule;
  if ((s.type != ScheduleType::kLinear && s.type != ScheduleType::kCosine) || !s.decay_steps ||
      *s.decay_steps > s.warmup) {
    return "";
  }
  return fmt::format("schedule.decay_steps = {} is not after schedule.warmup = {}", *s.decay_steps,
                     s.warmup);
}

std::string decay_within_run(const Config& c, const Given&) {
  const ScheduleConfig& s = c.schedule;
  if (s.type != ScheduleType::kWsd || !s.decay_steps || s.warmup + *s.decay_steps <= c.steps) {
    return "";
  }
  return fmt::format("schedule.warmup = {} and schedule.decay_steps = {} exceed steps = {}",
                     s.warmup, *s.decay_steps, c.steps);
}

std::string evaluation_has_data(const Config& c, const Given&) {
  if (c.eval.every == 0 || c.data.task || c.data.val.given()) return "";
  return fmt::format(
      "eval.every = {} needs validation data; give data.val, files or a fraction of the training "
      "data",
      c.eval.every);
}

std::string evaluation_ends(const Config& c, const Given&) {
  if (!c.data.task || c.eval.batches > 0) return "";
  return "eval.batches = 0 means all, but data.task has no end; give a number";
}

std::string samples_are_text(const Config& c, const Given&) {
  if (c.sample.every == 0 || (!c.data.task && c.data.tokenizer != "none")) return "";
  return "sample.every needs a tokenizer, and this data has none";
}

std::string samples_have_a_prompt(const Config& c, const Given&) {
  if (c.sample.every == 0 || !c.sample.prompt.empty()) return "";
  return "sample.prompt is empty; samples continue at least one token";
}

}  // namespace

const std::vector<CrossCheck>& cross_checks() {
  static const std::vector<CrossCheck> checks{
      {{"name"}, name_is_a_directory},
      {{"output_dir"}, output_dir_is_given},
      {{"model.embedding_dim", "model.num_heads"}, large_width_and_heads},
      {{"model.qk_dim_factor", "model.embedding_dim", "model.num_heads"}, large_qk_width},
      {{"model.v_dim_factor", "model.embedding_dim", "model.num_heads"}, large_v_width},
      {{"model.slstm_at", "model.num_blocks"}, slstm_positions},
      {{"model.slstm.num_heads", "model.embedding_dim", "model.slstm_at"}, slstm_width_and_heads},
      {{"model.mlstm.num_heads", "model.mlstm.proj_factor", "model.embedding_dim",
        "model.num_blocks", "model.slstm_at"},
       mlstm_heads},
      {{"model.mlstm.qkv_proj_blocksize", "model.mlstm.proj_factor", "model.embedding_dim",
        "model.num_blocks", "model.slstm_at"},
       mlstm_projection_blocks},
      {{"model.context_length", "data.seq_len", "data.task.train_lengths"},
       context_holds_sequences},
      {{"data.train", "data.task.name"}, some_data},
      {{"data.task.name", "data.task.train_lengths", "data.task.val_lengths", "data.task.modulus",
        "data.task.pairs", "data.task.vocab_size"},
       task_has_a_name},
      {{"data.tokenizer", "model.vocab_size"}, ids_have_a_vocabulary},
      {{"data.document_token", "model.vocab_size"}, document_token_exists},
      {{"micro_batch_size", "data.batch_size"}, micro_batches},
      {{"tf32", "precision"}, tf32_is_for_float32},
      {{"schedule.warmup", "steps"}, warmup_within_run},
      {{"schedule.decay_steps", "schedule.warmup", "schedule.type"}, decay_after_warmup},
      {{"schedule.decay_steps", "schedule.warmup", "steps", "schedule.type"}, decay_within_run},
      {{"eval.every", "data.val"}, evaluation_has_data},
      {{"eval.batches", "data.task.name"}, evaluation_ends},
      {{"sample.every", "data.tokenizer", "data.task.name"}, samples_are_text},
      {{"sample.prompt", "sample.every"}, samples_have_a_prompt},
  };
  return checks;
}

}  // namespace carousel
