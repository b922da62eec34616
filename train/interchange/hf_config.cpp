#include "train/interchange/hf_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "layers/xlstm_large.h"
#include "train/interchange/json_reader.h"

namespace carousel {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxBlocks = 4096;    // blocks are built before they are looked for
constexpr std::int64_t kMaxWidth = 1 << 20;  // with kMaxFactor: what keeps sizes within 64 bits

// transformers knows no number for "no cap": a cap that changes no value of float32 or bfloat16. As
// a power of two, it loses no bit on the way either.
constexpr double kNoCap = 1 << 30;

// transformers rounds the widths up to this in its cache, but not in its layers.
constexpr std::int64_t kCacheMultiple = 64;

void check_heads(const XlstmLargeConfig& c, JsonReader& reader) {
  for (const auto& [what, width] : {std::pair("hidden_size·qk_dim_factor", qk_dim(c)),
                                    std::pair("hidden_size·v_dim_factor", v_dim(c))}) {
    if (width < c.num_heads || width % c.num_heads != 0) {
      reader.fail(
          fmt::format("{} is {}, which num_heads = {} does not divide", what, width, c.num_heads));
    }
  }
}

XlstmLargeConfig read(JsonReader& reader) {
  XlstmLargeConfig c;
  reader.must_be("model_type", {"xlstm"}, "only 'xlstm' can be read");
  reader.must_be("tie_word_embeddings", {false}, "tied embeddings are not supported");
  reader.must_be("weight_mode", {"single", "fused"}, "must be 'single' or 'fused'");
  reader.either("hidden_size", "embedding_dim", c.embedding_dim, kMaxWidth);
  reader.either("num_hidden_layers", "num_blocks", c.num_blocks, kMaxBlocks);
  reader.required("num_heads", c.num_heads);
  reader.required("vocab_size", c.vocab_size);
  constexpr double kMaxFactor = 64.0;
  constexpr double kSmallest = 1e-6;
  reader.number("qk_dim_factor", c.qk_dim_factor, kSmallest, kMaxFactor);
  reader.number("v_dim_factor", c.v_dim_factor, kSmallest, kMaxFactor);
  reader.number("ffn_proj_factor", c.ffn_proj_factor, kSmallest, kMaxFactor);
  reader.integer("ffn_round_up_to_multiple_of", c.ffn_round_up_to_multiple_of, kMaxWidth);
  reader.number("gate_soft_cap", c.gate_soft_cap, kSmallest, kNoCap, 0.0);
  reader.number("output_logit_soft_cap", c.output_logit_soft_cap, kSmallest, kNoCap, 0.0);
  for (double* cap : {&c.gate_soft_cap, &c.output_logit_soft_cap}) {
    if (*cap == kNoCap) *cap = 0.0;
  }
  reader.number("norm_eps", c.norm_eps, 0.0, 1.0);
  reader.number("eps", c.eps, 0.0, 1.0);
  reader.boolean("use_bias", c.use_bias);
  reader.boolean("add_out_norm", c.add_out_norm);
  reader.integer("chunk_size", c.chunk_size);
  if (reader.problems().empty()) check_heads(c, reader);
  return c;
}

}  // namespace

const char* torch_name_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "float32";
    case DType::kBF16:
      return "bfloat16";
    case DType::kF16:
      return "float16";
    default:
      throw InternalError("no published checkpoint holds {}", name_of(dtype));
  }
}

bool fits_hf_cache(const XlstmLargeConfig& config) {
  return qk_dim(config) % kCacheMultiple == 0 && v_dim(config) % kCacheMultiple == 0;
}

std::string hf_config_json(const XlstmLargeConfig& c, DType dtype, WeightMode mode) {
  const auto cap = [](double value) { return value > 0.0 ? std::min(value, kNoCap) : kNoCap; };
  const bool cached = fits_hf_cache(c);
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
      {"use_cache", cached},
      // Beyond that length transformers takes its cache whatever use_cache says.
      {"max_inference_chunksize", cached ? 16384 : kMaxInteger},
      {"bos_token_id", 0},
      {"pad_token_id", 1},
      {"eos_token_id", 2},
      {"dtype", torch_name_of(dtype)},
      {"torch_dtype", torch_name_of(dtype)},  // the same, for transformers before 4.56
  };
  return config.dump(2) + "\n";
}

XlstmLargeConfig parse_hf_config(const std::filesystem::path& path, const std::string& text) {
  const json object = parse_json_object(path, text);
  JsonReader reader(object);
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
