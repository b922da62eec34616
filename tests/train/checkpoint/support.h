// Small checkpoints whose every file tells the same number.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/directory.h"

namespace carousel::testing {

inline Tensor filled(const Shape& shape, double value) {
  const std::vector<float> values(static_cast<std::size_t>(shape.numel()),
                                  static_cast<float>(value));
  return Tensor::from<float>(values, shape);
}

/// Contents marked with `mark`; the larger tensor takes a few writes.
inline CheckpointContents marked_contents(double mark, std::int64_t elements = 3000) {
  return {.model = {{"backbone.weight", filled({elements}, mark)}, {"bias", filled({3}, mark)}},
          .optimizer = {{"exp_avg.bias", filled({3}, mark)}},
          .config_json = fmt::format("{{\"mark\": {}}}\n", mark),
          .tokenizer_json = R"({"kind": "byte"})",
          .trainer = {{"mark", mark}}};
}

/// The mark of an intact checkpoint; −1 if its files tell different ones.
inline double mark_of(const Checkpoint& checkpoint) {
  const double mark = checkpoint.trainer().at("mark");
  for (const bool optimizer : {false, true}) {
    const SafetensorsFile file =
        optimizer ? std::move(checkpoint.optimizer().front()) : checkpoint.model();
    for (const std::string& name : file.names()) {
      for (const float x : file.load(name).to_vector<float>()) {
        if (x != static_cast<float>(mark)) return -1;
      }
    }
  }
  return nlohmann::json::parse(checkpoint.config_json()).at("mark") == mark ? mark : -1;
}

/// The names in a directory, sorted.
inline std::vector<std::string> entries(const std::filesystem::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace carousel::testing
