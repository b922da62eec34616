#include "data/tasks/task.h"

#include "core/base/error.h"

namespace carousel {
namespace {

/// A parameter that must lie in [low, 65536].
std::int32_t checked(const TaskConfig& config, const char* key, std::int64_t value,
                     std::int64_t low) {
  constexpr std::int64_t kHigh = 1 << 16;
  if (value < low || value > kHigh) {
    throw UsageError("data.task.{}: {} is not in [{}, {}] (task {})", key, value, low, kHigh,
                     config.name);
  }
  return static_cast<std::int32_t>(value);
}

std::unique_ptr<Task> make_named(const TaskConfig& config) {
  if (config.name == "parity") return make_parity();
  if (config.name == "even_pairs") return make_even_pairs();
  if (config.name == "cycle_navigation") {
    return make_cycle_navigation(checked(config, "modulus", config.modulus, 2));
  }
  if (config.name == "modular_arithmetic") {
    return make_modular_arithmetic(checked(config, "modulus", config.modulus, 2));
  }
  if (config.name == "associative_recall") {
    const std::int32_t pairs = checked(config, "pairs", config.pairs, 1);
    // Distinct keys: padding, `pairs` keys and at least as many values.
    return make_associative_recall(
        checked(config, "vocab_size", config.vocab_size, 2 * std::int64_t{pairs} + 1), pairs);
  }
  throw UsageError(
      "data.task.name: unknown task '{}'; it is one of parity, even_pairs, cycle_navigation, "
      "modular_arithmetic, associative_recall",
      config.name);
}

void check_lengths(const TaskConfig& config, const Task& task, const char* key,
                   LengthRange lengths) {
  constexpr std::int64_t kMaxLength = 1 << 24;
  if (lengths.min < task.min_length() || lengths.max < lengths.min || lengths.max > kMaxLength) {
    throw UsageError("data.task.{}: [{}, {}] is not an ascending range within [{}, {}] (task {})",
                     key, lengths.min, lengths.max, task.min_length(), kMaxLength, config.name);
  }
}

}  // namespace

std::unique_ptr<Task> make_task(const TaskConfig& config) {
  std::unique_ptr<Task> task = make_named(config);
  check_lengths(config, *task, "train_lengths", config.train_lengths);
  check_lengths(config, *task, "val_lengths", config.val_lengths);
  return task;
}

}  // namespace carousel
