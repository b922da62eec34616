// A trained model read back from its run directory, for generation and evaluation.
#pragma once

#include <filesystem>
#include <memory>

#include "data/tokenizer.h"
#include "layers/language_model.h"
#include "train/checkpoint/checkpoint.h"
#include "train/config/config.h"

namespace carousel {

/// Whether a path stands for one checkpoint, good or not: it has a manifest, or the name.
bool is_checkpoint(const std::filesystem::path& path);

/// `path`: a run directory, whose newest good checkpoint is taken, or a checkpoint directory.
/// Throws CheckpointError if there is none or it is damaged.
Checkpoint open_checkpoint(const std::filesystem::path& path);

struct TrainedModel {
  Config config;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<LanguageModel> model;
  std::filesystem::path checkpoint;
  std::int64_t step = 0;
};

/// Loads `path`: a run directory, whose newest good checkpoint is taken, or a checkpoint directory
/// inside one. `precision`: another than the run's. The model has no gradients: it is to be run,
/// not trained. Throws CheckpointError if there is none, or if it does not fit its configuration.
TrainedModel load_trained_model(const std::filesystem::path& path, DeviceChoice device,
                                std::optional<DType> precision = {});

}  // namespace carousel
