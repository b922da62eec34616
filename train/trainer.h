// The training loop: from a configuration to a run directory with checkpoints and metrics.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "data/dataset.h"
#include "layers/language_model.h"
#include "optim/adamw.h"
#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/directory.h"
#include "train/config/config.h"
#include "train/evaluate.h"
#include "train/metrics.h"
#include "train/stop_signal.h"

namespace carousel {

/// One run. The run directory, output_dir, holds config.yaml, train.log, metrics.jsonl and
/// checkpoints/.
class Trainer {
 public:
  /// Opens data and run directory, builds the model, and loads the newest good checkpoint or
  /// initialises. Throws UsageError, DataError or CheckpointError.
  explicit Trainer(const Config& config);

  /// Trains up to config.steps, then evaluates and saves. Throws Preempted, after saving, when
  /// SIGTERM, SIGUSR1 or SIGINT asks to stop, and NonFiniteError when the loss is not finite.
  void run();

 private:
  void open_run_directory();
  void restore(const Checkpoint& checkpoint);
  void report_start(bool resumed) const;
  StepReport train_step(std::int64_t step);
  /// What is due behind a step: evaluation, a sample, a checkpoint.
  void after_step(std::int64_t step);
  void evaluate_now(std::int64_t step);
  void sample_now(std::int64_t step);
  void save(std::int64_t step);

  Config config_;
  std::filesystem::path directory_;
  std::optional<DirectoryLock> lock_;  ///< one trainer a run directory
  StopSignal stop_;
  Device device_;
  Dataset dataset_;
  std::unique_ptr<LanguageModel> model_;
  std::optional<AdamW> optimizer_;
  std::optional<MetricsFile> metrics_;
  ProgressLine progress_;
  std::int64_t step_ = 0;         ///< steps done
  std::int64_t saved_step_ = -1;  ///< of the newest checkpoint; -1: none
  std::int64_t evaluated_step_ = -1;
};

}  // namespace carousel
