#include "train/interchange/hf_config.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "layers/xlstm_large.h"

namespace carousel {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxInteger = INT32_MAX;
constexpr std::int64_t kMaxBlocks = 4096;  // blocks are built before they are looked for

std::string shown(const json& value) {
  // Only scalars: dump() of a deeply nested value would recurse as deep.
  return value.is_structured() ? value.type_name() : value.dump(-1, ' ', true);
}

// Reads keys of one object and collects what is wrong with them.
class Reader {
 public:
  explicit Reader(const json& object) : object_(object) {}

  void fail(const std::string& problem) { problems_ += "\n  " + problem; }
  const std::string& problems() const { return problems_; }

  template <class T>
  void integer(const char* key, T& out, std::int64_t max = kMaxInteger) {
    if (const json* value = find(key)) {
      if (value->is_number_unsigned() && *value >= 1 && *value <= max) {
        out = value->get<T>();
      } else {
        fail(fmt::format("{} is {}, must be a whole number from 1 to {}", key, shown(*value), max));
      }
    }
  }
  // `null_value` is what null means, NaN if it means nothing.
  void number(const char* key, double& out, double min, double max, double null_value = NAN) {
    const auto found = object_.find(key);
    if (found == object_.end()) return;
    if (found->is_null() && !std::isnan(null_value)) {
      out = null_value;
    } else if (found->is_number() && found->get<double>() >= min && found->get<double>() <= max) {
      out = found->get<double>();
    } else {
      fail(fmt::format("{} is {}, must be a number from {} to {}", key, shown(*found), min, max));
    }
  }
  void boolean(const char* key, bool& out) {
    if (const json* value = find(key)) {
      if (value->is_boolean()) {
        out = value->get<bool>();
      } else {
        fail(fmt::format("{} is {}, must be true or false", key, shown(*value)));
      }
    }
  }
  // Two keys for one number: either may be missing, both must agree.
  void either(const char* key, const char* other, std::int64_t& out,
              std::int64_t max = kMaxInteger) {
    std::int64_t first = 0;
    std::int64_t second = 0;
    integer(key, first, max);
    integer(other, second, max);
    if (find(key) == nullptr && find(other) == nullptr) {
      fail(fmt::format("neither {} nor {} is given", key, other));
    } else if (first != 0 && second != 0 && first != second) {
      fail(fmt::format("{} is {}, but {} is {}", key, first, other, second));
    }
    out = first != 0 ? first : second;
  }
  void required(const char* key, std::int64_t& out) {
    if (find(key) == nullptr) fail(fmt::format("{} is missing", key));
    integer(key, out);
  }
  void must_be(const char* key, const std::vector<json>& allowed, const char* why) {
    const json* value = find(key);
    if (value == nullptr || std::ranges::find(allowed, *value) != allowed.end()) return;
    fail(fmt::format("{} is {}: {}", key, shown(*value), why));
  }

 private:
  // transformers writes null for "not given".
  const json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  const json& object_;
  std::string problems_;
};

void check_heads(const XlstmLargeConfig& c, Reader& reader) {
  for (const auto& [what, width] : {std::pair("hidden_size·qk_dim_factor", qk_dim(c)),
                                    std::pair("hidden_size·v_dim_factor", v_dim(c))}) {
    if (width < c.num_heads || width % c.num_heads != 0) {
      reader.fail(
          fmt::format("{} is {}, which num_heads = {} does not divide", what, width, c.num_heads));
    }
  }
}

XlstmLargeConfig read(Reader& reader) {
  XlstmLargeConfig c;
  reader.must_be("model_type", {"xlstm"}, "only 'xlstm' can be read");
  reader.must_be("tie_word_embeddings", {false}, "tied embeddings are not supported");
  reader.must_be("weight_mode", {"single", "fused"}, "must be 'single' or 'fused'");
  reader.either("hidden_size", "embedding_dim", c.embedding_dim);
  reader.either("num_hidden_layers", "num_blocks", c.num_blocks, kMaxBlocks);
  reader.required("num_heads", c.num_heads);
  reader.required("vocab_size", c.vocab_size);
  constexpr double kMaxFactor = 64.0;
  constexpr double kSmallest = 1e-6;
  constexpr double kMaxCap = 1e6;
  reader.number("qk_dim_factor", c.qk_dim_factor, kSmallest, kMaxFactor);
  reader.number("v_dim_factor", c.v_dim_factor, kSmallest, kMaxFactor);
  reader.number("ffn_proj_factor", c.ffn_proj_factor, kSmallest, kMaxFactor);
  reader.integer("ffn_round_up_to_multiple_of", c.ffn_round_up_to_multiple_of);
  reader.number("gate_soft_cap", c.gate_soft_cap, kSmallest, kMaxCap, 0.0);
  reader.number("output_logit_soft_cap", c.output_logit_soft_cap, kSmallest, kMaxCap, 0.0);
  reader.number("norm_eps", c.norm_eps, 0.0, 1.0);
  reader.number("eps", c.eps, 0.0, 1.0);
  reader.boolean("use_bias", c.use_bias);
  reader.boolean("add_out_norm", c.add_out_norm);
  reader.integer("chunk_size", c.chunk_size);
  if (reader.problems().empty()) check_heads(c, reader);
  return c;
}

const char* torch_name_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "float32";
    case DType::kBF16:
      return "bfloat16";
    case DType::kF16:
      return "float16";
    default:
      throw InternalError("no checkpoint of family A holds {}", name_of(dtype));
  }
}

}  // namespace

std::string hf_config_json(const XlstmLargeConfig& c, DType dtype, WeightMode mode) {
  const auto cap = [](double value) { return value > 0.0 ? json(value) : json(nullptr); };
  const nlohmann::ordered_json config = {
      {"architectures", {"xLSTMForCausalLM"}},
      {"model_type", "xlstm"},
      {"hidden_size", c.embedding_dim},
      {"embedding_dim", c.embedding_dim},
      {"num_hidden_layers", c.num_blocks},
      {"num_blocks", c.num_blocks},
      {"num_heads", c.num_heads},
      {"vocab_size", c.vocab_size},
      {"qk_dim_factor", c.qk_dim_factor},
      {"v_dim_factor", c.v_dim_factor},
      {"ffn_proj_factor", c.ffn_proj_factor},
      {"ffn_round_up_to_multiple_of", c.ffn_round_up_to_multiple_of},
      {"gate_soft_cap", cap(c.gate_soft_cap)},
      {"output_logit_soft_cap", cap(c.output_logit_soft_cap)},
      {"norm_eps", c.norm_eps},
      {"norm_reduction_force_float32", true},
      {"eps", c.eps},
      {"use_bias", c.use_bias},
      {"add_out_norm", c.add_out_norm},
      {"tie_word_embeddings", false},
      {"weight_mode", mode == WeightMode::kFused ? "fused" : "single"},
      {"chunk_size", c.chunk_size},
      // The implementations that need neither a GPU nor packages beside transformers.
      {"chunkwise_kernel", "chunkwise--native_autograd"},
      {"sequence_kernel", "native_sequence__native"},
      {"step_kernel", "native"},
      {"mode", "inference"},
      {"return_last_states", true},
      {"autocast_kernel_dtype", "float32"},
      {"inference_state_dtype", "float32"},
      {"use_cache", true},
      {"bos_token_id", 0},
      {"pad_token_id", 1},
      {"eos_token_id", 2},
      {"dtype", torch_name_of(dtype)},
      {"torch_dtype", torch_name_of(dtype)},  // the same, for transformers before 4.56
  };
  return config.dump(2) + "\n";
}

XlstmLargeConfig parse_hf_config(const std::filesystem::path& path, const std::string& text) {
  json object;
  try {
    object = json::parse(text);
  } catch (const json::exception& e) {
    throw CheckpointError("'{}' is broken: {}", path.string(),
                          std::string(e.what()).substr(0, 300));
  }
  if (!object.is_object()) throw CheckpointError("'{}' is not a JSON object", path.string());
  Reader reader(object);
  const XlstmLargeConfig config = read(reader);
  if (!reader.problems().empty()) {
    throw CheckpointError("'{}' does not describe a model of family xlstm_large:{}", path.string(),
                          reader.problems());
  }
  return config;
}

XlstmLargeConfig with_ffn_width(const XlstmLargeConfig& config, std::int64_t width) {
  XlstmLargeConfig c = config;
  if (ffn_dim(c) == width) return c;
  const auto exact = static_cast<double>(width) / static_cast<double>(c.embedding_dim);
  if (width % c.ffn_round_up_to_multiple_of != 0) c.ffn_round_up_to_multiple_of = 1;
  c.ffn_proj_factor = exact;
  if (ffn_dim(c) == width) return c;
  // The product rounds to just below the width: aim at the middle of what is rounded up to it.
  c.ffn_proj_factor = (static_cast<double>(width) + 0.5) / static_cast<double>(c.embedding_dim);
  CAROUSEL_CHECK(ffn_dim(c) == width, "no factor gives width {} at {}", width, c.embedding_dim);
  return c;
}

}  // namespace carousel
