#include "core/comm/monitor.h"

#include <unistd.h>

#include <climits>
#include <utility>
#include <vector>

#include "core/base/error.h"

namespace carousel::comm {
namespace {

constexpr Milliseconds kBeat{500};
// Of a silent rank or store: longer than a heartbeat takes on a busy machine.
constexpr Milliseconds kSilence{4 * kBeat};
constexpr const char* kFailure = "failure";

std::string beat_key(int rank) { return fmt::format("beat/{}", rank); }

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  return ::gethostname(name, HOST_NAME_MAX) == 0 ? name : "unknown host";
}

// The store goes, or falls silent, with the rank that serves it.
std::string store_failure(const Error& e) {
  return fmt::format("rank 0 died or does not respond ({})", e.what());
}

struct Beat {
  std::int64_t number = 0;  // of the newest collective
  std::string name;
};

// "count number name".
Beat parse_beat(const std::string& text) {
  Beat beat{0, "the start"};
  const std::size_t space = text.find(' ');
  if (space == std::string::npos) return beat;
  char* end = nullptr;
  beat.number = std::strtoll(text.c_str() + space + 1, &end, 10);
  if (*end == ' ') beat.name = end + 1;
  return beat;
}

}  // namespace

Monitor::Monitor(int rank, int world_size, Store& store, Milliseconds patience)
    : rank_(rank), world_size_(world_size), store_(store.another()), probe_(store.another()) {
  store_->set_patience(patience);
  probe_->set_patience(kSilence);
}

void Monitor::start(std::function<void()> on_failure) {
  on_failure_ = std::move(on_failure);
  store_->set_will(kFailure,
                   fmt::format("rank {} (process {} on {}) died", rank_, ::getpid(), host_name()));
  ended_ = false;
  thread_ = std::thread([this] {
    beat();
    end_heartbeat();
  });
}

void Monitor::end_heartbeat() noexcept {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_all();
}

void Monitor::stop() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kSilence, [&] { return ended_; })) probe_->give_up();
  }
  if (thread_.joinable()) thread_.join();
}

void Monitor::blame(const std::string& failure) {
  const std::lock_guard lock(mutex_);
  if (!failure_) failure_ = failure;
}

Monitor::Ticket Monitor::enter(std::string name) {
  const std::lock_guard lock(mutex_);
  newest_ = {newest_.number + 1, std::move(name)};
  return newest_;
}

Monitor::Ticket Monitor::newest() {
  const std::lock_guard lock(mutex_);
  return newest_;
}

void Monitor::note_failure(const std::string& failure) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_ || stopping_) return;
    failure_ = failure;
  }
  changed_.notify_all();
  on_failure_();
}

void Monitor::beat() {
  std::int64_t count = 0;
  try {
    for (;;) {
      Ticket at;
      {
        const std::lock_guard lock(mutex_);
        if (stopping_) return;
        at = newest_;
      }
      store_->set(beat_key(rank_), fmt::format("{} {} {}", ++count, at.number, at.name));
      if (const auto failure = store_->get(kFailure, Milliseconds{0})) {
        note_failure(*failure);
        return;
      }
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, kBeat, [&] { return stopping_; });
    }
  } catch (const Error& e) {
    note_failure(store_failure(e));
  }
}

void Monitor::report(const std::string& reason) noexcept {
  try {
    probe_->set_once(kFailure, fmt::format("rank {} stopped: {}", rank_, reason));
  } catch (const std::exception&) {
    // Without the store there is nobody to tell.
  }
}

std::optional<std::string> Monitor::failure(Milliseconds patience) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patience, [&] { return failure_.has_value(); });
  return failure_;
}

std::string Monitor::explain(const Ticket& ticket, const std::string& problem) {
  std::string blame;
  try {
    const std::vector<std::string> before = beats();
    const auto known = failure(kSilence);
    blame = known ? *known : suspects(before, ticket.number);
  } catch (const Error& e) {
    blame = store_failure(e);
  }
  return fmt::format("{} (collective {}) failed: {}; {}", ticket.name, ticket.number, blame,
                     problem);
}

std::vector<std::string> Monitor::beats() {
  std::vector<std::string> all;
  for (int r = 0; r < world_size_; ++r) {
    all.push_back(probe_->get(beat_key(r), Milliseconds{0}).value_or(""));
  }
  return all;
}

std::string Monitor::suspects(const std::vector<std::string>& before, std::int64_t number) {
  const std::vector<std::string> after = beats();
  std::string text;
  for (int r = 0; r < world_size_; ++r) {
    const auto at = static_cast<std::size_t>(r);
    const Beat now = parse_beat(after[at]);
    const char* separator = text.empty() ? "" : ", ";
    if (r == rank_) continue;
    if (after[at] == before[at]) {
      text += fmt::format("{}rank {} does not respond, last heard of in {} (collective {})",
                          separator, r, now.name, now.number);
    } else if (now.number < number) {
      text += fmt::format("{}rank {} hangs after {} (collective {})", separator, r, now.name,
                          now.number);
    }
  }
  return text.empty() ? "all ranks are there, so the network between them is to blame" : text;
}

}  // namespace carousel::comm
