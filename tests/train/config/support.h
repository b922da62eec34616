// Configurations in temporary files, and the errors of bad ones.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "train/config/config.h"

namespace carousel::testing {

/// The smallest configuration that is valid.
inline const std::string kMinimal =
    "name: tiny\n"
    "steps: 100\n"
    "model: {family: xlstm_large, embedding_dim: 128, num_heads: 4, num_blocks: 2}\n"
    "data: {train: corpus.txt}\n";

/// Writes `yaml` to a file that is removed at the end of the scope.
class ConfigFile {
 public:
  explicit ConfigFile(const std::string& yaml)
      : path_(::testing::TempDir() + "carousel-config-" + std::to_string(getpid()) + ".yaml") {
    std::ofstream(path_, std::ios::binary) << yaml;
  }
  ~ConfigFile() { std::filesystem::remove(path_); }
  ConfigFile(const ConfigFile&) = delete;
  ConfigFile& operator=(const ConfigFile&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline LoadedConfig load_text(const std::string& yaml,
                              const std::vector<std::string>& overrides = {}) {
  const ConfigFile file(yaml);
  LoadedConfig loaded = load_config_with_origins(file.path(), overrides);
  for (auto& [key, origin] : loaded.origins) {
    if (origin.starts_with(file.path())) origin.replace(0, file.path().size(), "run.yaml");
  }
  return loaded;
}

/// The lines of the error that loading `yaml` throws, its file named run.yaml; none if it loads.
inline std::vector<std::string> errors_of(const std::string& yaml,
                                          const std::vector<std::string>& overrides = {}) {
  const ConfigFile file(yaml);
  std::vector<std::string> lines;
  try {
    load_config(file.path(), overrides);
  } catch (const UsageError& e) {
    std::istringstream text(e.what());
    for (std::string line; std::getline(text, line);) {
      if (line.starts_with(file.path())) line.replace(0, file.path().size(), "run.yaml");
      lines.push_back(line);
    }
  }
  return lines;
}

}  // namespace carousel::testing
