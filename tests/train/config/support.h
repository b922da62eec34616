// Configurations in temporary files, and the errors of bad ones.
#pragma once

#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "tests/support/temp_dir.h"
#include "train/config/config.h"

namespace carousel::testing {

/// The smallest configuration that is valid.
inline const std::string kMinimal =
    "name: tiny\n"
    "steps: 100\n"
    "model: {family: xlstm_large, embedding_dim: 128, num_heads: 4, num_blocks: 2}\n"
    "data: {train: corpus.txt}\n";

/// One of family xlstm.
inline const std::string kNeurips =
    "name: neurips\n"
    "steps: 100\n"
    "model: {family: xlstm, embedding_dim: 64, num_blocks: 2, slstm_at: [1]}\n"
    "data: {train: corpus.txt}\n";

inline LoadedConfig load_text(const std::string& yaml,
                              const std::vector<std::string>& overrides = {}) {
  const TempDir dir;
  const std::string path = dir.write("run.yaml", yaml);
  LoadedConfig loaded = load_config_with_origins(path, overrides);
  for (auto& [key, origin] : loaded.origins) {
    if (origin.starts_with(path)) origin.replace(0, path.size(), "run.yaml");
  }
  return loaded;
}

/// The lines of the error that loading `yaml` throws, its file named run.yaml; none if it loads.
inline std::vector<std::string> errors_of(const std::string& yaml,
                                          const std::vector<std::string>& overrides = {}) {
  const TempDir dir;
  const std::string path = dir.write("run.yaml", yaml);
  std::vector<std::string> lines;
  try {
    load_config(path, overrides);
  } catch (const UsageError& e) {
    std::istringstream text(e.what());
    for (std::string line; std::getline(text, line);) {
      if (line.starts_with(path)) line.replace(0, path.size(), "run.yaml");
      lines.push_back(line);
    }
  }
  return lines;
}

}  // namespace carousel::testing
