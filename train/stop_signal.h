// Requests to stop: SIGTERM and SIGUSR1 (schedulers' preemption notices) and SIGINT (Ctrl-C).
#pragma once

namespace carousel {

/// While it lives, the three signals only set a flag, which the trainer reads between steps. A
/// second SIGINT ends the process at once. One at a time.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  /// The signal that asked to stop, or 0.
  int requested() const;
};

}  // namespace carousel
