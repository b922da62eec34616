// The training loop: from a configuration to a run directory with checkpoints and metrics.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "data/dataset.h"
#include "layers/language_model.h"
#include "optim/adamw.h"
#include "train/checkpoint/background_save.h"
#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/directory.h"
#include "train/checkpoint/snapshot.h"
#include "train/config/config.h"
#include "train/distributed/data_parallel.h"
#include "train/distributed/process_group.h"
#include "train/evaluate.h"
#include "train/metrics.h"
#include "train/run_records.h"
#include "train/stop_signal.h"

namespace carousel {

/// One run, or one process of it: where a launcher has started several, each trains on its part of
/// every batch. The run directory, output_dir, holds config.yaml, env.json, train.log,
/// metrics.jsonl, tensorboard/ if asked for, report.html and checkpoints/; rank 0 alone writes to
/// it, but for the parts of a sharded optimizer.
class Trainer {
 public:
  /// Opens data and run directory, builds the model, and loads the checkpoint that
  /// checkpoint.resume chooses or initialises. Throws UsageError, DataError or CheckpointError, and
  /// then leaves a run that is there as it was.
  explicit Trainer(const Config& config);

  /// Trains up to config.steps, then evaluates and saves. Throws Preempted, after saving, when
  /// SIGTERM, SIGUSR1 or SIGINT asks to stop, also between the micro-batches of an evaluation,
  /// which the run then begins with when it is resumed, and between the tokens of a sample. Throws
  /// NonFiniteError when the loss is not finite.
  void run();

 private:
  void set_up();
  void open_run_directory();
  std::optional<Checkpoint> checkpoint_to_resume();
  void restore(const Checkpoint& checkpoint);
  void report_start(const Checkpoint* beginning) const;
  void train();
  /// A signal that asks to stop, the same on all ranks, which are asked; 0: none.
  int stop_signal();
  /// Saves and throws Preempted if there is a signal.
  void stop_for(int signal);
  void stop_if_asked() { stop_for(stop_signal()); }
  /// This rank's part of a step's batch.
  Batch load(std::int64_t step) const;
  StepReport train_step(std::int64_t step);
  bool evaluation_due(std::int64_t step) const;
  bool evaluated_before();
  /// What is due behind a step: evaluation, a sample, a checkpoint.
  void after_step(std::int64_t step);
  void evaluate_now(std::int64_t step);
  void sample_now(std::int64_t step);
  /// `background`: in a thread, where checkpoint.async asks for it.
  void save(std::int64_t step, bool background);
  /// Saves where training ends, and reports that it is now in `state`; returns when all ranks have
  /// all checkpoints on the disk.
  void save_last(const std::string& state);
  std::function<void()> checkpoint_writer(std::int64_t step, bool from_snapshot);

  bool first() const { return launch_.rank == 0; }
  bool sharded() const { return parallel_ && parallel_->sharded(); }
  comm::Communicator* communicator() { return group_ ? &group_->communicator() : nullptr; }
  /// Runs work(); if it throws, tells the other ranks why this one stops.
  template <class Work>
  void telling_others(Work&& work);

  Config config_;
  std::filesystem::path directory_;
  std::optional<DirectoryLock> lock_;  ///< one trainer a run directory
  std::optional<StopSignal> stop_;
  LaunchEnvironment launch_;
  Device device_ = kCpu;
  std::optional<double> peak_flops_;    ///< of all ranks' devices, taken to be alike; else unknown
  std::unique_ptr<comm::Group> group_;  ///< null: this process is alone
  Dataset dataset_;
  std::unique_ptr<LanguageModel> model_;
  std::optional<DataParallel> parallel_;
  std::optional<AdamW> optimizer_;
  std::optional<Snapshot> snapshot_;   ///< with checkpoint.async
  std::optional<RunRecords> records_;  ///< of rank 0
  ProgressLine progress_;
  std::vector<std::int32_t> sample_prompt_;
  std::string resumed_from_;  ///< see Beginning
  std::int64_t step_ = 0;     ///< steps done
  /// Made ready in the step before: a batch, and how many targets all ranks' parts of it have.
  struct Next {
    std::int64_t step = 0;
    Batch batch;
    std::optional<double> targets;
  };
  Next next_;
  int signal_ = 0;                ///< what all ranks know of signals since the newest step
  std::int64_t saved_step_ = -1;  ///< of the newest checkpoint; -1: none
  std::int64_t saves_ = 0;        ///< checkpoints begun by this process
  BackgroundSave in_flight_;      ///< uses what is above: it must end before that does
};

}  // namespace carousel
