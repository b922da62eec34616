// Configuration of the training data: either files of text or shards, or a synthetic task.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace carousel {

/// Where validation data comes from: files of its own, or a part of the training files.
struct ValidationConfig {
  std::vector<std::string> files;
  double fraction = 0.0;  ///< in (0, 1): the last part of each training file is held out; 0: none

  bool given() const { return fraction > 0.0 || !files.empty(); }
};

/// Both ends included.
struct LengthRange {
  std::int64_t min = 0;
  std::int64_t max = 0;
};

/// A synthetic task, which makes its sequences itself.
struct TaskConfig {
  std::string name;
  LengthRange train_lengths{3, 40};
  LengthRange val_lengths{40, 256};
};

struct DataConfig {
  std::vector<std::string> train;  ///< paths of files; empty with a task
  ValidationConfig val;
  std::string tokenizer = "byte";    ///< byte, char, none, or the path of a SentencePiece .model
  std::int64_t seq_len = 256;        ///< tokens
  std::int64_t batch_size = 16;      ///< sequences a step, over all ranks and micro-batches
  bool document_boundaries = false;  ///< reset the recurrent state where a document starts
  std::optional<std::int64_t>
      document_token;              ///< id that starts a document; unset: the tokenizer's
  std::optional<TaskConfig> task;  ///< unset: train on files
};

}  // namespace carousel
