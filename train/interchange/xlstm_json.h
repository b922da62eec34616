// config.json of family B, in the form of the NX-AI package's xLSTMLMModelConfig.
#pragma once

#include <filesystem>
#include <string>

#include "layers/xlstm_config.h"

namespace carousel {

/// How the recurrent weights of sLSTM blocks lie in a state dict, which depends on the package's
/// backend: vanilla is (heads, 4·out, in) with biases (4, heads, out), CUDA (heads, in, 4·out) with
/// biases (heads, 4, out). Carousel's own is vanilla.
enum class SlstmLayout { kVanilla, kCuda };

/// The text of config.json; parse_xlstm_json() reads the configuration back from it unchanged.
std::string xlstm_json(const XlstmConfig& config, SlstmLayout layout = SlstmLayout::kVanilla);

/// The inverse; keys that do not shape the model are ignored. Throws CheckpointError that names
/// `path` and lists all problems.
XlstmConfig parse_xlstm_json(const std::filesystem::path& path, const std::string& text);

}  // namespace carousel
