// From a published model directory of either family to a run directory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

#include "train/interchange/published_model.h"

namespace carousel {

struct ImportOptions {
  /// A SentencePiece .model or a tokenizer.json of Carousel's; empty: text is lists of token ids.
  std::string tokenizer;
  std::size_t memory_limit = 0;  ///< bytes it may use; 0: what the machine has available
};

/// What an import needs, known from the headers alone.
struct ImportPlan {
  std::int64_t parameters = 0;
  std::size_t memory = 0;  ///< bytes for the largest tensor
  std::size_t disk = 0;    ///< bytes of float32 weights
  std::string largest;     ///< name and shape of that tensor
};
ImportPlan plan_import(const PublishedModel& published);

/// Writes `run`/config.yaml and the checkpoint `run`/checkpoints/step-00000000 with float32 weights
/// of the model in `source`. Streams: no more than one tensor is in memory. Throws CheckpointError;
/// UsageError if `run` holds checkpoints or a config.yaml already, or the tokenizer does not fit;
/// OutOfMemoryError with the plan's figures if the memory does not suffice. All these come before
/// anything is written.
void import_model(const std::filesystem::path& source, const std::filesystem::path& run,
                  const ImportOptions& options);

}  // namespace carousel
