#include "train/stop_signal.h"

#include <array>
#include <atomic>
#include <csignal>

namespace carousel {
namespace {

constexpr std::array kSignals = {SIGTERM, SIGUSR1, SIGINT};

// Signals come in any thread.
std::atomic<int> stop_requested{0};
static_assert(std::atomic<int>::is_always_lock_free, "handlers of signals must not wait");
std::array<struct sigaction, kSignals.size()> previous_actions;

void on_signal(int signal) {
  stop_requested = signal;
  if (signal == SIGINT) std::signal(SIGINT, SIG_DFL);  // the second one is not waited for
}

}  // namespace

StopSignal::StopSignal() {
  stop_requested = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], &action, &previous_actions[i]);
  }
}

StopSignal::~StopSignal() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], &previous_actions[i], nullptr);
  }
}

int StopSignal::requested() const { return stop_requested; }

}  // namespace carousel
