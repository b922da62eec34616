#include <algorithm>

#include "core/base/error.h"
#include "data/tasks/task.h"

namespace carousel {
namespace {

class AssociativeRecall final : public Task {
 public:
  AssociativeRecall(std::int32_t vocab_size, std::int32_t pairs)
      : vocab_size_(vocab_size), pairs_(pairs) {}

  std::int32_t vocab_size() const override { return vocab_size_; }
  std::int64_t min_length() const override { return 3 * std::int64_t{pairs_}; }

  void generate(TaskRandom& random, std::span<std::int32_t> tokens,
                std::span<std::int32_t> targets) const override {
    const std::int32_t num_keys = (vocab_size_ - 1) / 2;
    const std::int32_t num_values = vocab_size_ - 1 - num_keys;
    const auto context = 2 * static_cast<std::size_t>(pairs_);
    const std::span<std::int32_t> queries = tokens.subspan(context);
    std::ranges::fill(queries, kPadToken);
    const auto keys = random.distinct(pairs_, num_keys);
    const auto places = random.distinct(pairs_, static_cast<std::int64_t>(queries.size()));
    for (std::size_t p = 0; p < keys.size(); ++p) {
      const auto place = static_cast<std::size_t>(places[p]);
      const std::int32_t value = 1 + num_keys + random.below(num_values);
      tokens[2 * p] = queries[place] = 1 + keys[p];
      tokens[2 * p + 1] = targets[context + place] = value;
    }
  }

 private:
  std::int32_t vocab_size_;
  std::int32_t pairs_;
};

}  // namespace

std::unique_ptr<Task> make_associative_recall(std::int32_t vocab_size, std::int32_t pairs) {
  CAROUSEL_CHECK(1 <= pairs && pairs <= (vocab_size - 1) / 2, "{} pairs, vocabulary of {}", pairs,
                 vocab_size);
  return std::make_unique<AssociativeRecall>(vocab_size, pairs);
}

}  // namespace carousel
