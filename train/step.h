// One training step: gradients accumulated over the micro-batches of a global batch, then an
// update. The trainer, `plan`, the benchmark and the golden training curve all run this.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "data/batch.h"
#include "layers/language_model.h"
#include "optim/adamw.h"
#include "train/distributed/data_parallel.h"

namespace carousel {

struct StepOptions {
  std::uint64_t seed = 0;  ///< of the run: keys dropout
  std::int64_t step = 1;   ///< counted from 1
  double lr = 0.0;
  std::int64_t micro_batch_size = 0;  ///< sequences a forward pass; 0: the whole batch
  bool recompute = false;
  /// Adds the micro-batches' gradients as a fixed tree, so that the weights do not depend on how
  /// many ranks share the batch; costs a copy of the gradients per doubling of the micro-batches.
  bool deterministic = false;
  /// Targets of the global batch, where they are known; else the ranks are asked.
  std::optional<double> targets;
  /// Called when gradients are queued and weights and moments are about to change.
  std::function<void()> before_update;
  /// Called when the device has all that it needs for the step: the host's time is free. What it
  /// returns, as many values on all ranks, reaches them with the step's results.
  std::function<std::vector<double>()> meanwhile;
  DataParallel* parallel = nullptr;  ///< null: this process has the whole batch
};

struct StepResult {
  double loss = 0.0;           ///< nats per target, mean over the batch
  double gradient_norm = 0.0;  ///< before clipping
  /// What `meanwhile` returned on each rank.
  std::vector<std::vector<double>> told;
};

/// Runs the step on this rank's part of the global batch, of which all ranks have an equal share in
/// their order, and reads its results back. The mean is over all targets of the global
/// batch, however they fall on ranks and micro-batches. Throws NonFiniteError, which names step,
/// batch and the first non-finite tensor, if loss or gradient are not finite; the weights are then
/// those before the step. Throws DataError if the batch has no target.
StepResult run_step(LanguageModel& model, AdamW& optimizer, const Batch& batch,
                    const StepOptions& options);

}  // namespace carousel
