#include "data/tasks/task.h"

namespace carousel {
namespace {

class Parity final : public Task {
 public:
  std::int32_t vocab_size() const override { return 3; }
  void generate(TaskRandom& random, std::span<std::int32_t> tokens,
                std::span<std::int32_t> targets) const override {
    std::int32_t parity = 0;
    for (std::int32_t& token : tokens) {
      const std::int32_t bit = random.below(2);
      token = 1 + bit;
      parity ^= bit;
    }
    targets.back() = 1 + parity;
  }
};

}  // namespace

std::unique_ptr<Task> make_parity() { return std::make_unique<Parity>(); }

}  // namespace carousel
