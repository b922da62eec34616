// What a rank knows of the others while collectives run: heartbeats in the store, and the first
// failure that anyone reports.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/comm/store.h"

namespace carousel::comm {

class Monitor {
 public:
  /// A collective in the books: its number, from 1, and its name.
  struct Ticket {
    std::int64_t number = 0;
    std::string name;  ///< "all_reduce 'gradients'"
  };

  /// `patience` is how long a heartbeat may wait for the store.
  Monitor(int rank, int world_size, Store& store, Milliseconds patience);
  ~Monitor() { stop(); }
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  /// Starts the heartbeat: a thread that tells the store twice a second that this rank lives and
  /// where it is, and calls `on_failure` once, when another rank fails.
  void start(std::function<void()> on_failure);
  /// Leaves in peace: no failure is reported to the others afterwards. Does nothing a second time.
  void stop() noexcept;

  /// Enters a collective into the books.
  Ticket enter(std::string name);

  /// The last one entered.
  Ticket newest();

  /// Reports a failure of this rank, unless one is known already. Does not throw.
  void report(const std::string& reason) noexcept;
  /// The first failure of any rank, if this rank has heard of one; waits for it up to `patience`.
  std::optional<std::string> failure(Milliseconds patience = Milliseconds{0});
  /// Notes a failure that this rank has found, unless it knows one already.
  void blame(const std::string& failure);
  /// What to say of a collective that failed: who is to blame, from the reported failure or from
  /// heartbeats. Takes a few seconds.
  std::string explain(const Ticket& ticket, const std::string& problem);

 private:
  void beat();
  std::vector<std::string> beats();
  std::string suspects(const std::vector<std::string>& before, std::int64_t number);
  void note_failure(const std::string& failure);
  void end_heartbeat() noexcept;

  int rank_;
  int world_size_;
  std::unique_ptr<Store> store_;  // of the heartbeat
  std::unique_ptr<Store> probe_;  // of explain() and report(), which do not wait long
  std::function<void()> on_failure_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  bool ended_ = true;  // the heartbeat has
  Ticket newest_;
  std::optional<std::string> failure_;
  std::thread thread_;
};

}  // namespace carousel::comm
