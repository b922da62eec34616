// Batches of a synthetic task, made on the fly.
#pragma once

#include <memory>

#include "data/batch.h"
#include "data/tasks/task.h"

namespace carousel {

enum class TaskSplit : std::uint8_t { kTrain, kValidation };

/// Sequence b of batch t is a function of (seed, split, t, b). seq_len() is the longest length of
/// the split's range; shorter sequences are padded with kPadToken at the end, with ignored targets.
/// Targets stand at the token where the model must answer: they are not shifted.
class TaskSource final : public BatchSource {
 public:
  /// `count`: batches of one pass, or kEndless. Throws UsageError if the configuration is
  /// unsuitable.
  TaskSource(const TaskConfig& config, TaskSplit split, std::int64_t batch_size, std::int64_t count,
             std::uint64_t seed);

  Batch batch(std::int64_t index, std::int64_t begin, std::int64_t end) const override;
  std::string describe(std::int64_t steps) const override;

 private:
  TaskSource(std::unique_ptr<Task> task, const TaskConfig& config, TaskSplit split,
             std::int64_t batch_size, std::int64_t count, std::uint64_t seed);

  std::unique_ptr<Task> task_;
  std::string name_;
  LengthRange lengths_;
  DataStream stream_;
  std::uint64_t seed_;
};

}  // namespace carousel
