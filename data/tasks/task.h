// Synthetic tasks: small problems with exact labels that tell what a recurrent cell can learn.
// Sources: Delétang et al., "Neural networks and the Chomsky hierarchy" (ICLR 2023) for parity,
// cycle navigation, even pairs and modular arithmetic; Arora et al., "Zoology" (ICLR 2024) for
// multi-query associative recall.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "data/config.h"
#include "data/tasks/task_random.h"

namespace carousel {

/// Token 0 pads sequences in every task.
inline constexpr std::int32_t kPadToken = 0;

/// Draws sequences with labels. Immutable; usable from several threads.
class Task {
 public:
  virtual ~Task() = default;
  /// Token ids are [0, vocab_size()), 0 being padding.
  virtual std::int32_t vocab_size() const = 0;
  /// The shortest sequence that the task can make, at least 1.
  virtual std::int64_t min_length() const { return 1; }
  /// The longest sequence of at most `length` >= min_length() tokens that the task can make.
  virtual std::int64_t fit(std::int64_t length) const { return length; }
  /// Fills `tokens`, whose size is a value of fit(), and the labels among `targets`, which has the
  /// same size and is filled with kIgnoreTarget before.
  virtual void generate(TaskRandom& random, std::span<std::int32_t> tokens,
                        std::span<std::int32_t> targets) const = 0;
};

/// Throws UsageError if the name is unknown or a parameter unsuitable.
std::unique_ptr<Task> make_task(const TaskConfig& config);

/// Each task, for make_task() and tests.
///
/// Parity: bits are tokens 1 and 2; the last one's target is 1 + (number of 2s mod 2).
std::unique_ptr<Task> make_parity();
/// Even pairs: letters are tokens 1 and 2; the last one's target is 1 if an even number of adjacent
/// letters differ, else 2.
std::unique_ptr<Task> make_even_pairs();
/// Cycle navigation: moves 1 (stay), 2 (forward), 3 (back) on a cycle of `modulus` positions, from
/// position 0; the last one's target is 4 + the position.
std::unique_ptr<Task> make_cycle_navigation(std::int32_t modulus);
/// Modular arithmetic without brackets: number, operator, number, …, of odd length; numbers v are
/// tokens 1 + v, operators modulus + 1 (+), + 2 (−), + 3 (×), and × binds most; the last token's
/// target is 1 + the value mod `modulus`.
std::unique_ptr<Task> make_modular_arithmetic(std::int32_t modulus);
/// Multi-query associative recall: `pairs` times key, value, with distinct keys; then every key
/// once more, in random order and places, between padding; the target of each such query is its
/// value. Keys are tokens [1, 1 + K), values [1 + K, vocab_size), K = (vocab_size − 1) / 2.
std::unique_ptr<Task> make_associative_recall(std::int32_t vocab_size, std::int32_t pairs);

}  // namespace carousel
