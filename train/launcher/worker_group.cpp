#include "train/launcher/worker_group.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <system_error>

#include "core/base/error.h"

namespace carousel {
namespace {

constexpr auto kPreemptedCode = static_cast<int>(ExitCode::kPreempted);
constexpr auto kPeerCode = static_cast<int>(ExitCode::kPeer);
// A rank that reports the death of another, or leaves it to another to say what all have found
// wrong, may be noticed before that other one.
constexpr std::chrono::milliseconds kPeersMayBeFirst{400};
// The others mostly end at once; only where they do not is the failure told before their end.
constexpr std::chrono::milliseconds kTellBefore{800};
// How often to look whether these times, or the group's patience, have passed.
constexpr std::chrono::milliseconds kLookAfterFailure{100};

sigset_t signals_of_interest() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGCHLD, SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2}) {
    sigaddset(&set, signal);
  }
  struct sigaction hangup {};
  ::sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) sigaddset(&set, SIGHUP);  // nohup ignores it
  return set;
}

// Whether it failed by itself and, unless a signal ended it, has said why.
bool speaks_for_itself(const WorkerFailure& f) {
  return f.end.code != kPeerCode && (f.end.signal != 0 || !f.errors.empty());
}

// The first that speaks for itself; if none does, the first that does not only report peers.
const WorkerFailure& cause_of(const std::vector<WorkerFailure>& failures) {
  auto cause = std::ranges::find_if(failures, speaks_for_itself);
  if (cause == failures.end()) {
    cause = std::ranges::find_if(failures,
                                 [](const WorkerFailure& f) { return f.end.code != kPeerCode; });
  }
  return cause == failures.end() ? failures.front() : *cause;
}

}  // namespace

std::string to_string(const WorkerFailure& failure) {
  const std::string how = failure.end.signal != 0
                              ? fmt::format("killed by signal {} ({})", failure.end.signal,
                                            ::strsignal(failure.end.signal))
                              : fmt::format("with exit code {}", failure.end.code);
  return fmt::format("rank {} (pid {}) failed first, {}{}{}", failure.rank, failure.pid, how,
                     failure.errors.empty() ? "" : ": ", failure.errors);
}

LauncherSignals::LauncherSignals() {
  const sigset_t set = signals_of_interest();
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  descriptor_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (descriptor_ < 0) {
    throw UsageError("cannot watch signals: {}", std::generic_category().message(errno));
  }
}

LauncherSignals::~LauncherSignals() {
  while (next() != 0) {
  }
  ::close(descriptor_);
  const sigset_t set = signals_of_interest();
  ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

int LauncherSignals::next() {
  signalfd_siginfo info{};
  while (::read(descriptor_, &info, sizeof info) == sizeof info) {
    if (info.ssi_signo != SIGCHLD) return newest_ = static_cast<int>(info.ssi_signo);
  }
  return 0;
}

WorkerGroup::WorkerGroup(const std::vector<WorkerStart>& workers, const Options& options,
                         LauncherSignals& signals)
    : options_(options), signals_(signals) {
  for (const WorkerStart& start : workers) {
    workers_.push_back(
        std::make_unique<Worker>(start, [this](int descriptor) { await_console(descriptor); }));
  }
}

GroupEnd WorkerGroup::wait(const std::function<void(const WorkerFailure&)>& on_failure) {
  while (true) {
    poll_once();
    pass_on_signals();
    collect_ended();
    if (!failures_.empty()) {
      const auto since = Clock::now() - first_failure_;
      if (speaks_for_itself(cause_of(failures_)) || since >= kPeersMayBeFirst) end_the_others();
      if (!told_ && since >= kTellBefore && any_running()) {
        told_ = true;
        on_failure(cause_of(failures_));
      }
    }
    if (!any_running()) break;
  }
  GroupEnd end{.preempted = preempted_};
  if (!failures_.empty()) end.failure = cause_of(failures_);
  return end;
}

void WorkerGroup::poll_once() {
  std::vector<pollfd> watched{{signals_.descriptor(), POLLIN, 0}};
  for (const auto& worker : workers_) {
    for (const int descriptor : {worker->out(), worker->err()}) {
      if (descriptor >= 0) watched.push_back({descriptor, POLLIN, 0});
    }
  }
  const auto interval = failures_.empty() ? options_.check_interval
                                          : std::min(options_.check_interval, kLookAfterFailure);
  ::poll(watched.data(), watched.size(), static_cast<int>(interval.count()));
  for (const auto& worker : workers_) worker->forward_output();
}

void WorkerGroup::await_console(int descriptor) {
  std::array<pollfd, 2> watched{{{descriptor, POLLOUT, 0}, {signals_.descriptor(), POLLIN, 0}}};
  ::poll(watched.data(), watched.size(), -1);
  pass_on_signals();
}

void WorkerGroup::pass_on_signals() {
  for (int signal = signals_.next(); signal != 0; signal = signals_.next()) {
    signal_all(signal);
  }
}

void WorkerGroup::collect_ended() {
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    Worker& worker = *workers_[i];
    if (!worker.reap() || asked_) continue;
    const WorkerEnd end = *worker.end();
    if (end.code == 0) continue;
    if (end.code == kPreemptedCode) {
      preempted_ = true;
      continue;
    }
    if (failures_.empty()) first_failure_ = Clock::now();
    failures_.push_back(
        {options_.first_rank + static_cast<int>(i), worker.pid(), end, worker.errors()});
  }
}

void WorkerGroup::end_the_others() {
  if (!asked_) signal_all(SIGTERM);
  asked_ = true;
  if (!killed_ && Clock::now() - first_failure_ >= options_.patience) {
    signal_all(SIGKILL);
    killed_ = true;
  }
}

void WorkerGroup::signal_all(int signal) {
  for (const auto& worker : workers_) {
    if (!worker->running()) continue;
    worker->signal(signal);
    worker->signal(SIGCONT);  // one that was stopped must see it
  }
}

bool WorkerGroup::any_running() const {
  return std::ranges::any_of(workers_, [](const auto& worker) { return worker->running(); });
}

}  // namespace carousel
