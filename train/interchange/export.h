// From a checkpoint to a model directory: family A as transformers or the NX-AI package loads it,
// family B as a state dict of the NX-AI package.
#pragma once

#include <cstdint>
#include <filesystem>

#include "train/checkpoint/checkpoint.h"
#include "train/interchange/layout.h"

namespace carousel {

struct ExportOptions {
  DType dtype = DType::kF32;  ///< f32, bf16 or f16
  Layout layout;
  std::uint64_t shard_bytes = 5'000'000'000;  ///< a file is larger only if one tensor is
};

/// Writes config.json and model.safetensors, or shards with their index, into `directory`, which
/// must be absent or empty; config.json last, so that an interrupted export does not load. Needs
/// memory for one tensor. Throws CheckpointError; UsageError if `directory` is not empty, if
/// the layout asks family B for fused tensors, or if transformers would compute another model.
void export_model(const Checkpoint& checkpoint, const std::filesystem::path& directory,
                  const ExportOptions& options);

}  // namespace carousel
