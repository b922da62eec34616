// Where the golden data lie.
#pragma once

#include <cstdlib>
#include <string>

namespace carousel::testing {

/// The path of a golden file, e.g. golden_path("mlstm_cell.safetensors"): in the directory that the
/// environment's CAROUSEL_GOLDEN_DIR names, or in the repository's tests/golden.
inline std::string golden_path(const std::string& name) {
  const char* directory = std::getenv("CAROUSEL_GOLDEN_DIR");
  const bool given = directory != nullptr && *directory != '\0';
  return std::string(given ? directory : CAROUSEL_GOLDEN_DEFAULT) + "/" + name;
}

}  // namespace carousel::testing
