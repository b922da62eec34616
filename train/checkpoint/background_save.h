// The one checkpoint that is being written while training goes on.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <string_view>

namespace carousel {

/// Runs saves in a thread of their own, one at a time. Errors of a save are thrown once, by the
/// first check() or finish() after it.
class BackgroundSave {
 public:
  BackgroundSave() = default;
  /// Waits as finish() does; an error is logged.
  ~BackgroundSave();
  BackgroundSave(const BackgroundSave&) = delete;
  BackgroundSave& operator=(const BackgroundSave&) = delete;

  /// Begins to run `save`, which writes the checkpoint of `step` from memory that does not change.
  /// None may be in flight: finish() first.
  void start(std::int64_t step, std::function<void()> save);
  /// Throws what the save in flight has thrown, if it has ended; does not wait.
  void check();
  /// Waits until no save is in flight and throws what it has thrown. If that takes time, the log
  /// says that `who` waits.
  void finish(std::string_view who);
  /// The same for one that is failing already: an error of the save is logged.
  void settle() noexcept;

 private:
  std::int64_t step_ = 0;
  std::future<void> result_;  ///< valid: a save is in flight, or its end has yet to be noticed
};

}  // namespace carousel
