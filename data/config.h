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
  double fraction = 0.0;  ///< in (0, 1): this part of the training tokens, from their end; 0: none

  bool given() const { return fraction > 0.0 || !files.empty(); }
};

/// Both ends included.
struct LengthRange {
  std::int64_t min = 0;
  std::int64_t max = 0;
};

/// A synthetic task, which makes its sequences itself.
struct TaskConfig {
  /// parity, even_pairs, cycle_navigation, modular_arithmetic or associative_recall
  std::string name;
  LengthRange train_lengths{3, 40};
  LengthRange val_lengths{40, 256};
  std::int64_t modulus = 5;      ///< positions on the cycle; modulus of the arithmetic
  std::int64_t pairs = 4;        ///< key-value pairs of associative recall
  std::int64_t vocab_size = 64;  ///< of associative recall: padding, keys and values
};

struct DataConfig {
  std::vector<std::string> train;  ///< files, directories, glob patterns; empty with a task
  ValidationConfig val;
  /// byte, char, none, or the path of a SentencePiece .model or of Carousel's tokenizer.json
  std::string tokenizer = "byte";
  std::int64_t seq_len = 256;        ///< tokens; a task's sequences are as long as its lengths say
  std::int64_t batch_size = 16;      ///< sequences a step, over all ranks and micro-batches
  bool document_boundaries = false;  ///< reset the recurrent state where a document starts
  std::optional<std::int64_t>
      document_token;              ///< id that starts a document; unset: the tokenizer's
  std::optional<TaskConfig> task;  ///< unset: train on files
};

}  // namespace carousel
