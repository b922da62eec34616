#include "data/tasks/task_source.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/kernels/cross_entropy.h"

namespace carousel {
namespace {

LengthRange lengths_of(const TaskConfig& config, TaskSplit split) {
  return split == TaskSplit::kTrain ? config.train_lengths : config.val_lengths;
}

}  // namespace

TaskSource::TaskSource(const TaskConfig& config, TaskSplit split, std::int64_t batch_size,
                       std::int64_t count, std::uint64_t seed)
    : TaskSource(make_task(config), config, split, batch_size, count, seed) {}

TaskSource::TaskSource(std::unique_ptr<Task> task, const TaskConfig& config, TaskSplit split,
                       std::int64_t batch_size, std::int64_t count, std::uint64_t seed)
    : BatchSource(batch_size, lengths_of(config, split).max, task->vocab_size(), count),
      task_(std::move(task)),
      name_(config.name),
      lengths_(lengths_of(config, split)),
      stream_(split == TaskSplit::kTrain ? DataStream::kTaskTrain : DataStream::kTaskValidation),
      seed_(seed) {}

Batch TaskSource::batch(std::int64_t index, std::int64_t begin, std::int64_t end) const {
  Batch batch = new_batch(index, begin, end, false);
  const auto all = [](const Tensor& t) {
    return std::span(t.data<std::int32_t>(), static_cast<std::size_t>(t.numel()));
  };
  std::ranges::fill(all(batch.tokens), kPadToken);
  std::ranges::fill(all(batch.targets), kIgnoreTarget);
  for (std::int64_t b = begin; b < end; ++b) {
    TaskRandom random(seed_, stream_, static_cast<std::uint32_t>(index),
                      static_cast<std::uint32_t>(b));
    const std::int64_t drawn = lengths_.min + random.below(lengths_.max - lengths_.min + 1);
    const auto length = static_cast<std::size_t>(task_->fit(drawn));
    const auto row = static_cast<std::size_t>((b - begin) * seq_len());
    task_->generate(random, all(batch.tokens).subspan(row, length),
                    all(batch.targets).subspan(row, length));
  }
  batch.target_count = static_cast<std::int64_t>(all(batch.targets).size()) -
                       std::ranges::count(all(batch.targets), kIgnoreTarget);
  return batch;
}

std::string TaskSource::describe(std::int64_t steps) const {
  std::string text = fmt::format("task {}, lengths {} to {}, vocabulary of {}", name_, lengths_.min,
                                 lengths_.max, vocab_size());
  if (steps > 0) text += fmt::format(", {} sequences in {} steps", steps * batch_size(), steps);
  return text;
}

}  // namespace carousel
