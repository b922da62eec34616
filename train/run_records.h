// What a run records, in one place: all of it is made of the records of metrics.jsonl.
#pragma once

#include <cstdint>
#include <fstream>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "data/dataset.h"
#include "layers/language_model.h"
#include "train/config/config.h"
#include "train/metrics.h"
#include "train/report.h"
#include "train/tensorboard.h"

namespace carousel {

/// For the report: what is trained, on what.
Facts run_facts(const Config& config, const LanguageModel& model, const Dataset& dataset,
                Device device, int processes);

/// metrics.jsonl, the event file for TensorBoard if logging.tensorboard asks for it, and
/// report.html, in output_dir. For rank 0 alone.
class RunRecords {
 public:
  /// `resumed_step`: of the checkpoint that the run goes on from; 0: none. `facts`: for the report.
  /// Throws UsageError if a file cannot be written.
  RunRecords(const Config& config, std::int64_t resumed_step, Facts facts);
  /// Whether metrics.jsonl told of an evaluation at `resumed_step`.
  bool evaluated() const { return metrics_.evaluated(); }
  /// Throws UsageError if the disk is full.
  void write(const nlohmann::json& record);
  /// Puts a new report.html in the place of the old one: `state` at `step`. If that fails it warns,
  /// for no run should end for it.
  void report(const std::string& state, std::int64_t step);

 private:
  std::filesystem::path directory_;
  RunSummary summary_;
  MetricsFile metrics_;
  std::optional<EventFile> events_;
  std::ifstream written_;  ///< metrics.jsonl, behind what history_ has of it
  RunHistory history_;
};

}  // namespace carousel
