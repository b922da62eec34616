#include "data/tasks/task.h"

namespace carousel {
namespace {

class CycleNavigation final : public Task {
 public:
  explicit CycleNavigation(std::int32_t positions) : positions_(positions) {}

  std::int32_t vocab_size() const override { return kFirstPosition + positions_; }
  void generate(TaskRandom& random, std::span<std::int32_t> tokens,
                std::span<std::int32_t> targets) const override {
    const std::int32_t steps[] = {0, 1, positions_ - 1};  // stay, forward, back
    std::int32_t position = 0;
    for (std::int32_t& token : tokens) {
      const std::int32_t move = random.below(3);
      token = 1 + move;
      position = (position + steps[move]) % positions_;
    }
    targets.back() = kFirstPosition + position;
  }

 private:
  static constexpr std::int32_t kFirstPosition = 4;
  std::int32_t positions_;
};

}  // namespace

std::unique_ptr<Task> make_cycle_navigation(std::int32_t modulus) {
  return std::make_unique<CycleNavigation>(modulus);
}

}  // namespace carousel
