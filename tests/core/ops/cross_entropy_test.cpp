#include "core/ops/cross_entropy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/autograd/gradcheck.h"
#include "core/kernels/cross_entropy.h"
#include "core/ops/elementwise.h"
#include "tests/support/errors.h"
#include "tests/support/precision.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

using testing::expect_error;
using testing::expect_precision;
using testing::random_normal;
using testing::relative_error;
using testing::to_doubles;

Tensor targets_of(const std::vector<std::int32_t>& ids) {
  return Tensor::from<std::int32_t>(ids, {static_cast<std::int64_t>(ids.size())});
}

// −log softmax of the target, from the definition, in double.
std::vector<double> oracle(const Tensor& logits, const std::vector<std::int32_t>& target,
                           double cap) {
  const auto z = to_doubles(logits);
  const auto vocab = static_cast<std::size_t>(logits.dim(1));
  std::vector<double> loss;
  for (std::size_t r = 0; r < target.size(); ++r) {
    if (target[r] == kIgnoreTarget) {
      loss.push_back(0.0);
      continue;
    }
    const auto capped = [&](std::size_t v) {
      const double x = z[r * vocab + v];
      return cap > 0 ? cap * std::tanh(x / cap) : x;
    };
    double total = 0.0;
    for (std::size_t v = 0; v < vocab; ++v) total += std::exp(capped(v));
    loss.push_back(std::log(total) - capped(static_cast<std::size_t>(target[r])));
  }
  return loss;
}

TEST(CrossEntropy, MatchesItsDefinitionWithAndWithoutCap) {
  for (const std::int64_t vocab : {1, 3, 65, 1000}) {
    const Tensor logits = random_normal<float>({5, vocab}, 1, 4.0);
    const auto last = static_cast<std::int32_t>(vocab - 1);
    const std::vector<std::int32_t> target = {0, last, kIgnoreTarget, last / 2, 0};
    for (const double cap : {0.0, 3.0}) {
      const auto got = cross_entropy(Variable(logits), targets_of(target), cap);
      const auto want = oracle(logits, target, cap);
      const auto loss = to_doubles(got.loss.value());
      for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(loss[i], want[i], 1e-5);
    }
  }
}

TEST(CrossEntropy, GradientsMatchDifferences) {
  const Tensor target = targets_of({0, 4, kIgnoreTarget, 2});
  for (const double cap : {0.0, 2.0}) {
    const auto fn = [&](const std::vector<Variable>& in) {
      return std::vector<Variable>{cross_entropy(in[0], target, cap).loss};
    };
    const auto result = gradcheck(fn, {random_normal<double>({4, 5}, 1, 2.0)});
    EXPECT_TRUE(result.ok) << result.report;
  }
}

TEST(CrossEntropy, HugeLogitsDoNotOverflow) {
  const Tensor logits =
      Tensor::from<float>(std::vector<float>{1e4f, -1e4f, 0, 0, 5e3f, -5e3f}, {2, 3});
  const auto got = cross_entropy(Variable(logits), targets_of({0, 0}), 0.0);
  const auto loss = to_doubles(got.loss.value());
  EXPECT_EQ(loss[0], 0.0);
  EXPECT_EQ(loss[1], 5e3);
}

TEST(CrossEntropy, CountsTheFirstOfTheLargestLogitsAsCorrect) {
  const Tensor logits =
      Tensor::from<float>(std::vector<float>{1, 2, 3, 3, 2, 1, 0, 5, 0, 4, 7, 7, 4, 7, 7}, {5, 3});
  const auto got = cross_entropy(Variable(logits), targets_of({2, 1, kIgnoreTarget, 1, 2}), 0.0);
  EXPECT_EQ(got.correct.to_vector<std::uint8_t>(), (std::vector<std::uint8_t>{1, 0, 0, 1, 0}));
}

TEST(CrossEntropy, ANanLogitGivesANanLoss) {
  for (const std::size_t at : {0, 7, 18}) {
    std::vector<float> logits(19, 1.0f);
    logits[at] = NAN;
    const auto got =
        cross_entropy(Variable(Tensor::from<float>(logits, {1, 19})), targets_of({3}), 0.0);
    EXPECT_TRUE(std::isnan(got.loss.value().item()));
  }
}

TEST(CrossEntropy, PrecisionIsThatOfTheStorage) {
  for (const std::int64_t vocab : {65, 20011}) {
    const Tensor target = targets_of({0, 64, kIgnoreTarget, 17});
    for (const double cap : {0.0, 30.0}) {
      const auto fn = [&](const std::vector<Variable>& in) {
        return std::vector<Variable>{cross_entropy(in[0], target, cap).loss};
      };
      // The loss is float32 for bf16 logits too; their gradient is rounded once.
      expect_precision(fn, {random_normal<float>({4, vocab}, 1, 3.0)}, 3e-6, 0x1.0p-8);
    }
  }
  const auto got = cross_entropy(to_dtype(Variable(random_normal<float>({1, 5}, 1)), DType::kBF16),
                                 targets_of({2}), 0.0);
  EXPECT_EQ(got.loss.dtype(), DType::kF32);
}

TEST(CrossEntropy, TheGradientTakesTheMemoryOfLogitsThatNobodyHolds) {
  const Variable x =
      Variable::leaf(random_normal<float>({8, 1000}, 1), Tensor::zeros({8, 1000}, DType::kF32));
  const Tensor target = targets_of({0, 1, 2, 3, 4, 5, 6, 7});
  const auto peak_of_backward = [](const Variable& loss) {
    const std::size_t before = memory_stats(kCpu).total_used;
    reset_peak_memory(kCpu);
    backward(loss);
    return memory_stats(kCpu).total_peak - before;
  };
  const std::size_t size = x.value().bytes();
  const Variable zeros(Tensor::zeros({8, 1000}, DType::kF32));
  const Variable loss = sum(cross_entropy(add(x, zeros), target, 3.0).loss);
  EXPECT_LT(peak_of_backward(loss), size / 2);
  const std::vector<float> freed = x.grad().to_vector<float>();

  Tensor(x.grad()).zero_();
  const Variable held = add(x, zeros);
  EXPECT_GE(peak_of_backward(sum(cross_entropy(held, target, 3.0).loss)), size);
  EXPECT_EQ(held.value().to_vector<float>(), x.value().to_vector<float>());
  EXPECT_EQ(x.grad().to_vector<float>(), freed);
}

TEST(CrossEntropy, RefusesBadTargetsAndNamesThem) {
  const Variable logits(random_normal<float>({2, 3}, 1));
  for (const std::int32_t bad : {3, -2}) {
    expect_error<DataError>(
        [&] {
          cross_entropy(logits, targets_of({0, bad}), 0.0);
        },
        {fmt::format("[cross_entropy] target {} at position 1 is outside the vocabulary of 3",
                     bad)});
  }
  expect_error<UsageError>(
      [&] { cross_entropy(logits, targets_of({0}), 0.0); },
      {"[cross_entropy] target i32 (1) on cpu against logits f32 (2, 3) on cpu"});
  expect_error<UsageError>(
      [&] {
        cross_entropy(logits, targets_of({0, 1}), -1.0);
      },
      {"[cross_entropy] logits f32 (2, 3) on cpu", "cap -1 (>= 0)"});
}

TEST(Sum, AddsInFloat64AndGradientsMatchDifferences) {
  const std::vector<float> many(100001, 0.1f);
  const Tensor x = Tensor::from<float>(many, {100001});
  EXPECT_NEAR(sum(Variable(x)).value().item(), 100001 * static_cast<double>(0.1f), 1e-3);
  const auto fn = [](const std::vector<Variable>& in) { return std::vector<Variable>{sum(in[0])}; };
  const auto result = gradcheck(fn, {random_normal<double>({3, 4}, 1)});
  EXPECT_TRUE(result.ok) << result.report;
}

}  // namespace
}  // namespace carousel
