// config.json of family A as transformers' xLSTMForCausalLM reads and writes it.
#pragma once

#include <filesystem>
#include <string>

#include "core/tensor/dtype.h"
#include "layers/xlstm_large_config.h"

namespace carousel {

/// How a checkpoint of family A groups its linears: one tensor each, or q, k, v and output gate in
/// one, both gates in one, both upward projections in one.
enum class WeightMode { kSingle, kFused };

/// "float32", "bfloat16" or "float16".
const char* torch_name_of(DType dtype);

/// Whether transformers' cache has room for the states. Where it has not, the model runs there
/// without it: use_cache is false in config.json, and to generate reads the whole text for each
/// token.
bool fits_hf_cache(const XlstmLargeConfig& config);

/// The text of config.json; parse_hf_config() reads the configuration back from it unchanged but
/// for the dropout, which it has no word for. `dtype` is that of the tensors beside it.
std::string hf_config_json(const XlstmLargeConfig& config, DType dtype = DType::kF32,
                           WeightMode mode = WeightMode::kSingle);

/// The inverse, for any writer's file: hidden_size or embedding_dim, num_hidden_layers or
/// num_blocks; keys that do not shape the model are ignored. Throws CheckpointError that names
/// `path` and lists all problems: broken JSON, missing keys, wrong types, values out of range or
/// contradicting each other, features that Carousel does not have.
XlstmLargeConfig parse_hf_config(const std::filesystem::path& path, const std::string& text);

/// `config` with a feed-forward of exactly `width`: unchanged if its width is that already, else
/// with a factor (and, if it must be, a multiple) that gives it under the PyTorch rounding rule.
XlstmLargeConfig with_ffn_width(const XlstmLargeConfig& config, std::int64_t width);

}  // namespace carousel
