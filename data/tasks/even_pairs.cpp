#include "data/tasks/task.h"

namespace carousel {
namespace {

class EvenPairs final : public Task {
 public:
  std::int32_t vocab_size() const override { return 3; }
  void generate(TaskRandom& random, std::span<std::int32_t> tokens,
                std::span<std::int32_t> targets) const override {
    for (std::int32_t& token : tokens) token = 1 + random.below(2);
    // Every change of letter flips between the first letter and the other one.
    targets.back() = tokens.front() == tokens.back() ? 1 : 2;
  }
};

}  // namespace

std::unique_ptr<Task> make_even_pairs() { return std::make_unique<EvenPairs>(); }

}  // namespace carousel
