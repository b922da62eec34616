// From a published model directory of family A to a run directory.
#pragma once

#include <filesystem>
#include <string>

namespace carousel {

struct ImportOptions {
  /// A SentencePiece .model or a tokenizer.json of Carousel's; empty: text is lists of token ids.
  std::string tokenizer;
};

/// Writes `run`/config.yaml and the checkpoint `run`/checkpoints/step-00000000 with float32 weights
/// of the model in `source`. Needs memory for one float32 copy of the model. Throws
/// CheckpointError, and UsageError if `run` holds checkpoints already or the tokenizer does not
/// fit.
void import_model(const std::filesystem::path& source, const std::filesystem::path& run,
                  const ImportOptions& options);

}  // namespace carousel
