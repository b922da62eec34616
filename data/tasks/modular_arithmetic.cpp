#include "data/tasks/task.h"

namespace carousel {
namespace {

class ModularArithmetic final : public Task {
 public:
  explicit ModularArithmetic(std::int32_t modulus) : modulus_(modulus) {}

  std::int32_t vocab_size() const override { return modulus_ + 4; }
  std::int64_t fit(std::int64_t length) const override { return length - (length + 1) % 2; }

  void generate(TaskRandom& random, std::span<std::int32_t> tokens,
                std::span<std::int32_t> targets) const override {
    // A sum of signed products: `product` is the one still open, with its sign.
    std::int64_t sum = 0;
    std::int64_t product = random.below(modulus_);
    tokens[0] = 1 + static_cast<std::int32_t>(product);
    for (std::size_t i = 1; i + 1 < tokens.size(); i += 2) {
      const std::int32_t op = random.below(3);  // +, −, ×
      const std::int32_t number = random.below(modulus_);
      tokens[i] = modulus_ + 1 + op;
      tokens[i + 1] = 1 + number;
      if (op == 2) {
        product = product * number % modulus_;
      } else {
        sum = (sum + product) % modulus_;
        product = op == 0 ? number : -number;
      }
    }
    const std::int64_t value = (sum + product) % modulus_;
    targets.back() = 1 + static_cast<std::int32_t>((value + modulus_) % modulus_);
  }

 private:
  std::int32_t modulus_;
};

}  // namespace

std::unique_ptr<Task> make_modular_arithmetic(std::int32_t modulus) {
  return std::make_unique<ModularArithmetic>(modulus);
}

}  // namespace carousel
