#include "train/config/schema.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

namespace carousel {
namespace {

template <class T>
inline constexpr bool kIsOptional = false;
template <class T>
inline constexpr bool kIsOptional<std::optional<T>> = true;

/// Calls visit on the member at the end of the chain, each link a pointer to a member or a function
/// of what the link before led to. An optional section on the way is made if `object` may be
/// changed; if it may not, an absent one ends the walk without a call.
template <class Object, class Visit>
void follow(Object&& object, const Visit& visit) {
  visit(object);
}
template <class Object, class Visit, class Member, class... Rest>
void follow(Object&& object, const Visit& visit, Member member, Rest... rest) {
  using Plain = std::remove_reference_t<Object>;
  if constexpr (kIsOptional<std::remove_const_t<Plain>>) {
    if constexpr (!std::is_const_v<Plain>) {
      if (!object) object.emplace();
    }
    if (object) follow(*object, visit, member, rest...);
  } else {
    follow(std::invoke(member, object), visit, rest...);
  }
}

/// Builds a Field from its key, its doc and the chain of members that leads to the value.
class Entry {
 public:
  template <class... Members>
  Entry(std::string key, std::string doc, Members... members) {
    field_.key = std::move(key);
    field_.doc = std::move(doc);
    Config example;
    follow(
        example, [&](auto& value) { describe(value); }, members...);
    field_.parse = [members...](const YAML::Node& node, const Rule& rule, const Report& report,
                                Config& config) {
      follow(
          config, [&](auto& value) { parse_value(node, rule, report, value); }, members...);
    };
    field_.format = [members...](const Config& config) {
      std::optional<std::string> text;
      follow(
          config, [&](const auto& value) { text = format_value(value); }, members...);
      return text;
    };
  }

  Entry& required() { return field_.required = true, *this; }
  Entry& may_change() { return field_.may_change = true, *this; }
  Entry& absent(std::string meaning) { return field_.absent = std::move(meaning), *this; }
  Entry& unit(std::string name) { return field_.rule.unit = std::move(name), *this; }
  Entry& for_files() { return field_.for_files = true, *this; }
  Entry& of(ModelFamily family) { return field_.family = family, *this; }
  Entry& one_of(std::vector<std::string> choices) {
    return field_.rule.choices = std::move(choices), *this;
  }
  Entry& or_path() { return field_.rule.or_path = true, *this; }

  Entry& at_least(double min) { return field_.rule.range.min = min, *this; }
  Entry& at_most(double max) { return field_.rule.range.max = max, *this; }
  Entry& above(double min) { return field_.rule.range.open_min = true, at_least(min); }
  Entry& below(double max) { return field_.rule.range.open_max = true, at_most(max); }

  operator Field() const { return field_; }  // NOLINT: the table is a list of Fields

 private:
  template <class Value>
  void describe(const Value& value) {
    field_.type = type_name(value);
    if constexpr (Enumeration<Value>) field_.rule.choices = words<Value>();
  }

  Field field_;
};

// Bounds that keep every product of two sizes within 64 bits, and token ids within 32.
constexpr double kMaxWidth = 1 << 20;
constexpr double kMaxTokens = 1 << 30;

// The functions below are tables, laid out by hand.
// clang-format off

void add(std::vector<Field>& all, std::initializer_list<Field> fields) {
  all.insert(all.end(), fields);
}

void add_run(std::vector<Field>& all) {
  add(all, {
      Entry("name", "name of the run, also of its directory", &Config::name).required().may_change(),
      Entry("seed", "seed of initial weights, data order and dropout", &Config::seed).at_least(0),
      Entry("steps", "optimizer steps of the whole run", &Config::steps)
          .required().at_least(1).at_most(0xffffffffu).unit("steps").may_change(),
      Entry("output_dir", "directory of the run", &Config::output_dir)
          .absent("runs/<name>").may_change(),
  });
}

void add_xlstm_large(std::vector<Field>& all) {
  using M = ModelConfig;
  using X = XlstmLargeConfig;
  const auto entry = [](const char* key, const char* doc, auto member) {
    return Entry(key, doc, &Config::model, &M::xlstm_large, member).of(ModelFamily::kXlstmLarge);
  };
  add(all, {
      entry("model.embedding_dim", "width of the residual stream", &X::embedding_dim)
          .required().at_least(1).at_most(kMaxWidth),
      entry("model.num_heads", "heads of each mLSTM", &X::num_heads)
          .required().at_least(1).at_most(kMaxWidth),
      entry("model.num_blocks", "blocks, each an mLSTM and a feed-forward layer", &X::num_blocks)
          .required().at_least(1).at_most(4096),
      entry("model.qk_dim_factor", "width of queries and keys over embedding_dim",
            &X::qk_dim_factor).above(0).at_most(8),
      entry("model.v_dim_factor", "width of values over embedding_dim", &X::v_dim_factor)
          .above(0).at_most(8),
      entry("model.ffn_proj_factor", "width of the feed-forward layer over embedding_dim",
            &X::ffn_proj_factor).above(0).at_most(64),
      entry("model.ffn_round_up_to_multiple_of", "that width is rounded up to a multiple of this",
            &X::ffn_round_up_to_multiple_of).at_least(1).at_most(kMaxWidth),
      entry("model.gate_soft_cap", "c of c·tanh(x/c) on input and forget gates; 0: no cap",
            &X::gate_soft_cap).at_least(0),
      entry("model.output_logit_soft_cap", "c of c·tanh(x/c) on the logits; 0: no cap",
            &X::output_logit_soft_cap).at_least(0),
      entry("model.norm_eps", "added to the variance in norms", &X::norm_eps).above(0).at_most(1),
      entry("model.eps", "added to the mLSTM's normaliser", &X::eps).above(0).at_most(1),
      entry("model.use_bias", "biases in all linear layers, not only in the gates", &X::use_bias),
      entry("model.add_out_norm", "norm before the logits", &X::add_out_norm),
      entry("model.chunk_size", "length of the mLSTM's chunks in training", &X::chunk_size)
          .at_least(1).at_most(4096).unit("tokens"),
      entry("model.dropout", "after the embedding and on both residual branches", &X::dropout)
          .at_least(0).below(1),
  });
}

void add_xlstm(std::vector<Field>& all) {
  using M = ModelConfig;
  using X = XlstmConfig;
  const auto entry = [](const char* key, const char* doc, auto... members) {
    return Entry(key, doc, &Config::model, &M::xlstm, members...).of(ModelFamily::kXlstm);
  };
  add(all, {
      entry("model.embedding_dim", "width of the residual stream", &X::embedding_dim)
          .required().at_least(1).at_most(kMaxWidth),
      entry("model.num_blocks", "mLSTM and sLSTM blocks together", &X::num_blocks)
          .required().at_least(1).at_most(4096),
      entry("model.slstm_at", "positions of the sLSTM blocks, from 0; the others are mLSTM",
            &X::slstm_at).at_least(0).at_most(4095),
      entry("model.context_length", "longest sequence the model is meant for", &X::context_length)
          .at_least(1).at_most(kMaxTokens).unit("tokens").absent("data.seq_len"),
      entry("model.bias", "biases in the mLSTM layers' projections", &X::bias),
      entry("model.dropout", "in every block", &X::dropout).at_least(0).below(1),
      entry("model.add_post_blocks_norm", "norm before the logits", &X::add_post_blocks_norm),
      entry("model.tie_weights", "one matrix for embedding and logits", &X::tie_weights),
      entry("model.weight_decay_on_embedding", "whether weight decay covers the embedding",
            &X::weight_decay_on_embedding),
      entry("model.mlstm.num_heads", "heads of each mLSTM", &X::mlstm, &X::Mlstm::num_heads)
          .at_least(1).at_most(kMaxWidth),
      entry("model.mlstm.conv1d_kernel_size", "taps of the causal convolution", &X::mlstm,
            &X::Mlstm::conv1d_kernel_size).at_least(1).at_most(64),
      entry("model.mlstm.qkv_proj_blocksize", "block size of the block-diagonal q, k and v",
            &X::mlstm, &X::Mlstm::qkv_proj_blocksize).at_least(1).at_most(kMaxWidth),
      entry("model.mlstm.proj_factor", "inner width over embedding_dim", &X::mlstm,
            &X::Mlstm::proj_factor).above(0).at_most(64),
      entry("model.slstm.num_heads", "heads of each sLSTM", &X::slstm, &X::Slstm::num_heads)
          .at_least(1).at_most(kMaxWidth),
      entry("model.slstm.conv1d_kernel_size", "taps of the causal convolution", &X::slstm,
            &X::Slstm::conv1d_kernel_size).at_least(1).at_most(64),
      entry("model.feedforward.proj_factor", "width of the feed-forward layer over embedding_dim",
            &X::feedforward, &X::FeedForward::proj_factor).above(0).at_most(64),
      entry("model.feedforward.act_fn", "its activation", &X::feedforward,
            &X::FeedForward::act_fn).one_of({"gelu"}),
  });
}

void add_model(std::vector<Field>& all) {
  using M = ModelConfig;
  add(all, {
      Entry("model.family", "xlstm_large as xLSTM-7B, or xlstm with mLSTM and sLSTM blocks",
            &Config::model, &M::family).required(),
      Entry("model.vocab_size", "number of tokens known to the model", &Config::model,
            &M::vocab_size).at_least(1).at_most(kMaxTokens).unit("tokens")
          .absent("the tokenizer's"),
  });
  add_xlstm_large(all);
  add_xlstm(all);
}

void add_data(std::vector<Field>& all) {
  using D = DataConfig;
  const auto entry = [](const char* key, const char* doc, auto... members) {
    return Entry(key, doc, &Config::data, members...);
  };
  using T = TaskConfig;
  const std::string with_task = "only with a task";
  add(all, {
      entry("data.train", "training files, directories or glob patterns", &D::train)
          .absent("none").for_files(),
      entry("data.val", "validation files, or the fraction of the training tokens to hold out", &D::val)
          .above(0).below(1).absent("no validation").for_files(),
      entry("data.tokenizer", "byte, char, none (token shards), a SentencePiece .model or Carousel's tokenizer.json",
            &D::tokenizer).one_of({"byte", "char", "none"}).or_path().for_files(),
      entry("data.seq_len", "length of a training sequence", &D::seq_len)
          .at_least(1).at_most(kMaxTokens).unit("tokens").for_files(),
      entry("data.batch_size", "sequences a step, over all processes", &D::batch_size)
          .at_least(1).at_most(kMaxWidth).unit("sequences"),
      entry("data.document_boundaries", "start each document with an empty state",
            &D::document_boundaries).for_files(),
      entry("data.document_token", "token id that starts a document", &D::document_token)
          .at_least(0).at_most(kMaxTokens).absent("the tokenizer's").for_files(),
      entry("data.task.name", "synthetic task to train on in place of files", &D::task, &T::name)
          .one_of({"parity", "even_pairs", "cycle_navigation", "modular_arithmetic",
                   "associative_recall"}).absent("none"),
      entry("data.task.train_lengths", "shortest and longest training sequence", &D::task,
            &T::train_lengths).at_least(1).at_most(1 << 24).unit("tokens").absent(with_task),
      entry("data.task.val_lengths", "shortest and longest validation sequence", &D::task,
            &T::val_lengths).at_least(1).at_most(1 << 24).unit("tokens").absent(with_task),
      entry("data.task.modulus", "positions of cycle_navigation; modulus of modular_arithmetic",
            &D::task, &T::modulus).at_least(2).at_most(65536).absent(with_task),
      entry("data.task.pairs", "key-value pairs of associative_recall", &D::task, &T::pairs)
          .at_least(1).at_most(65536).absent(with_task),
      entry("data.task.vocab_size", "tokens of associative_recall: padding, keys and values",
            &D::task, &T::vocab_size).at_least(3).at_most(65536).absent(with_task),
  });
}

void add_optimisation(std::vector<Field>& all) {
  using O = AdamWConfig;
  using S = ScheduleConfig;
  add(all, {
      Entry("optim.lr", "peak learning rate", &Config::optim, &O::lr).above(0).at_most(10),
      Entry("optim.betas", "decay of Adam's first and second moments", &Config::optim,
            [](auto& optim) { return std::tie(optim.beta1, optim.beta2); }).at_least(0).below(1),
      Entry("optim.eps", "added to the root of Adam's second moment", &Config::optim, &O::eps)
          .above(0).at_most(1),
      Entry("optim.weight_decay", "decoupled weight decay, times the learning rate",
            &Config::optim, &O::weight_decay).at_least(0).at_most(10),
      Entry("optim.clip", "largest global gradient norm; 0: no clipping", &Config::optim, &O::clip)
          .at_least(0),
      Entry("schedule.type", "course of the learning rate after warm-up", &Config::schedule,
            &S::type),
      Entry("schedule.warmup", "steps of linear warm-up", &Config::schedule, &S::warmup)
          .at_least(0).at_most(0xffffffffu).unit("steps"),
      Entry("schedule.min_lr_ratio", "last learning rate over the peak", &Config::schedule,
            &S::min_lr_ratio).at_least(0).at_most(1),
      Entry("schedule.decay_steps", "step at which linear and cosine end; wsd: length of its decay",
            &Config::schedule, &S::decay_steps).at_least(1).at_most(0xffffffffu).unit("steps")
          .absent("all steps; wsd: a tenth of them"),
      Entry("precision", "of activations and of the weights in use; masters are f32",
            &Config::precision),
      Entry("tf32", "float32 matrix products on a GPU round operands to TF32: faster, 10 bits",
            &Config::tf32),
      Entry("device", "where to train; auto: CUDA if there is a device", &Config::device)
          .may_change(),
      Entry("micro_batch_size", "sequences a forward pass; must divide data.batch_size",
            &Config::micro_batch_size).at_least(1).at_most(kMaxWidth).unit("sequences")
          .absent("the batch").may_change(),
      Entry("recompute", "keep one activation a block and recompute the rest: slower, less memory",
            &Config::recompute).may_change(),
  });
}

void add_services(std::vector<Field>& all) {
  using C = CheckpointConfig;
  using E = EvalConfig;
  using S = SampleConfig;
  using D = DistributedConfig;
  std::vector<Field> fields{
      Entry("distributed.zero_stage", "1: shard optimizer state and bf16's f32 masters; 0: copies",
            &Config::distributed, &D::zero_stage).at_least(0).at_most(1),
      Entry("distributed.timeout_s",
            "longest wait for the other processes, to join and in each collective",
            &Config::distributed, &D::timeout_s).at_least(1).at_most(1 << 20).unit("seconds"),
      Entry("distributed.deterministic",
            "add gradients as a fixed tree: the same bits on 1, 2, 4, … processes",
            &Config::distributed, &D::deterministic),
      Entry("distributed.bucket_mb", "gradients that are reduced at once",
            &Config::distributed, &D::bucket_mb).at_least(1).at_most(1 << 14).unit("MiB"),
      Entry("distributed.overlap", "reduce while the backward goes on; else behind it",
            &Config::distributed, &D::overlap),
      Entry("checkpoint.every", "between checkpoints; 0: only at the end", &Config::checkpoint,
            &C::every).at_least(0).unit("steps"),
      Entry("checkpoint.keep", "newest checkpoints kept; 0: all", &Config::checkpoint, &C::keep)
          .at_least(0),
      Entry("checkpoint.async",
            "write while training goes on, from a copy in host memory: 12 bytes a parameter",
            &Config::checkpoint, &C::async),
      Entry("checkpoint.resume",
            "auto: continue from the newest good checkpoint of output_dir; a path: begin with that one",
            &Config::checkpoint, &C::resume).one_of({"auto", "never"}).or_path(),
      Entry("eval.every", "between evaluations; 0: only at the end", &Config::eval, &E::every)
          .at_least(0).unit("steps"),
      Entry("eval.batches", "batches an evaluation; 0: all", &Config::eval, &E::batches).at_least(0),
      Entry("sample.every", "between samples of text; 0: none", &Config::sample, &S::every)
          .at_least(0).unit("steps"),
      Entry("sample.prompt", "text that samples continue", &Config::sample, &S::prompt),
      Entry("sample.tokens", "length of a sample", &Config::sample, &S::tokens)
          .at_least(1).at_most(kMaxTokens).unit("tokens"),
      Entry("sample.temperature", "of sampling; 0: always the most likely token", &Config::sample,
            &S::temperature).at_least(0).at_most(100),
      Entry("logging.every", "between lines of the log", &Config::logging, &LoggingConfig::every)
          .at_least(1).unit("steps"),
      Entry("logging.tensorboard", "write event files for TensorBoard to output_dir/tensorboard",
            &Config::logging, &LoggingConfig::tensorboard),
  };
  for (Field& field : fields) field.may_change = true;
  all.insert(all.end(), fields.begin(), fields.end());
}

// clang-format on

}  // namespace

std::string Field::accepts() const {
  std::string text = type;
  if (!rule.choices.empty()) {
    text = fmt::format("{}{}", fmt::join(rule.choices, " | "), rule.or_path ? " | a path" : "");
  }
  if (const std::string range = rule.range.to_string(); !range.empty()) text += ", " + range;
  if (!rule.unit.empty()) text += ", " + rule.unit;
  return text;
}

const std::vector<Field>& schema() {
  static const std::vector<Field> fields = [] {
    std::vector<Field> all;
    add_run(all);
    add_model(all);
    add_data(all);
    add_optimisation(all);
    add_services(all);
    return all;
  }();
  return fields;
}

std::string_view section_of(std::string_view key) {
  const std::size_t dot = key.rfind('.');
  return dot == std::string_view::npos ? std::string_view{} : key.substr(0, dot);
}

std::string_view leaf_of(std::string_view key) { return key.substr(key.rfind('.') + 1); }

}  // namespace carousel
