// What a run tells: a progress line for people, metrics.jsonl for programs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "core/tensor/device.h"
#include "train/run_file.h"

namespace carousel {

/// One step, as measured.
struct StepReport {
  std::int64_t step = 0;
  std::int64_t steps = 0;  ///< of the whole run
  double loss = 0.0;       ///< nats per target
  double gradient_norm = 0.0;
  double lr = 0.0;
  double seconds = 0.0;              ///< of the step
  std::int64_t tokens = 0;           ///< in the step
  double training_flops = 0;         ///< useful FLOPs of the step
  std::optional<double> peak_flops;  ///< per second, of the hardware; unknown: no MFU
  std::size_t memory_bytes = 0;
  double eta_seconds = 0.0;
};

/// `step 61/74 | loss 3.2089 | norm 1.480 | lr 3.0e-04 | 44.6 ms | 91.9k tok/s | MFU 43.4% |
/// mem 12.3 GiB | eta 0:01:02`
std::string format_progress(const StepReport& report);

/// "0:01:02" for 62 seconds.
std::string format_clock(double seconds);

/// Shows steps: in place after every step on a terminal, else a line in the log every `every` steps
/// and at the end; the log file gets those lines in either case.
class ProgressLine {
 public:
  explicit ProgressLine(std::int64_t every) : every_(every) {}
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void show(const StepReport& report);

 private:
  std::int64_t every_;
};

/// metrics.jsonl: one JSON object a line, appended and flushed.
class MetricsFile {
 public:
  /// Opens or creates `path`. Of an existing file only whole lines with a "step" of at most
  /// `resumed_step` stay: what a killed run had written beyond its checkpoint is done again, and
  /// its last line may be half written. Being killed in here loses nothing. Throws UsageError if
  /// the file cannot be read or written.
  MetricsFile(const std::filesystem::path& path, std::int64_t resumed_step);
  /// Whether the existing file told of an evaluation at `resumed_step`.
  bool evaluated() const { return evaluated_; }
  /// Throws UsageError if the disk is full.
  void write(const nlohmann::json& record);

 private:
  bool evaluated_;
  GrowingFile file_;
};

/// {"step", "loss", "grad_norm", "lr", "seconds", "tokens_per_second", "memory_bytes"[, "mfu"]}
nlohmann::json step_record(const StepReport& report);

/// {"step", "checkpoint_stall_ms"}: how long training stood still for a checkpoint.
nlohmann::json checkpoint_record(std::int64_t step, double stall_seconds);

/// Resident memory of this process on the CPU, memory held from the device elsewhere.
std::size_t memory_in_use(Device device);

}  // namespace carousel
