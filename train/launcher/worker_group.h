// The workers of one host, from their start until all have ended.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "train/launcher/worker.h"

namespace carousel {

/// The worker that brought the group down.
struct WorkerFailure {
  int rank = 0;
  pid_t pid = 0;
  WorkerEnd end;
  std::string errors;  ///< what it said
};

/// "rank 1 (pid 4711) failed first, with exit code 3: data.txt: no such file"
std::string to_string(const WorkerFailure& failure);

struct GroupEnd {
  std::optional<WorkerFailure> failure;
  bool preempted = false;  ///< a worker saved and stopped (exit code 75)
};

/// Signals as descriptors: SIGCHLD, and those that are passed on to workers (SIGTERM, SIGINT,
/// SIGHUP unless it is ignored, SIGQUIT, SIGUSR1, SIGUSR2). While it lives they are blocked.
class LauncherSignals {
 public:
  LauncherSignals();
  ~LauncherSignals();
  LauncherSignals(const LauncherSignals&) = delete;
  LauncherSignals& operator=(const LauncherSignals&) = delete;

  int descriptor() const { return descriptor_; }
  /// The next that has arrived, other than SIGCHLD; 0: none.
  int next();
  /// The newest that next() gave; 0: none so far.
  int newest() const { return newest_; }

 private:
  int descriptor_ = -1;
  int newest_ = 0;
};

class WorkerGroup {
 public:
  struct Options {
    int first_rank = 0;  ///< of the first worker
    std::chrono::milliseconds check_interval{100};
    /// Between a failure and the end of those that do not end by themselves.
    std::chrono::milliseconds patience{10000};
  };

  /// Starts them all; `signals` must live as long. Throws UsageError if one cannot be started.
  WorkerGroup(const std::vector<WorkerStart>& workers, const Options& options,
              LauncherSignals& signals);
  WorkerGroup(const WorkerGroup&) = delete;
  WorkerGroup& operator=(const WorkerGroup&) = delete;

  /// Forwards output and signals until all workers have ended; signals also while a console takes
  /// no more. When a worker fails, asks the others to end; if they are not gone within a second,
  /// calls `on_failure`.
  GroupEnd wait(const std::function<void(const WorkerFailure&)>& on_failure);

 private:
  using Clock = std::chrono::steady_clock;

  void poll_once();
  void await_console(int descriptor);
  void collect_ended();
  void pass_on_signals();
  void end_the_others();
  void signal_all(int signal);
  bool any_running() const;

  Options options_;
  LauncherSignals& signals_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<WorkerFailure> failures_;  ///< in the order in which they were noticed
  Clock::time_point first_failure_;
  bool preempted_ = false;
  bool told_ = false;   ///< on_failure has been called
  bool asked_ = false;  ///< SIGTERM has been sent to the others
  bool killed_ = false;
};

}  // namespace carousel
