#include "core/ops/elementwise.h"

#include <gtest/gtest.h>

#include "core/autograd/random.h"
#include "core/kernels/elementwise.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

using testing::random_normal;
using testing::to_doubles;

TEST(Cast, RoundsToNearestEvenAndKeepsNanAndInfinity) {
  const float ulp = 0x1.0p-7f;  // of bf16 at 1
  const std::vector<float> x = {1.0f + 0.5f * ulp, 1.0f + 1.5f * ulp, 1.0f + 0.51f * ulp,
                                INFINITY,          -INFINITY,         3.4e38f};
  const auto y = to_doubles(to_dtype(Variable(Tensor::from<float>(x, {6})), DType::kBF16).value());
  EXPECT_EQ(y,
            (std::vector<double>{1.0, 1.0 + 2.0 * ulp, 1.0 + ulp, INFINITY, -INFINITY, INFINITY}));
  const Variable nan(Tensor::from<float>(std::vector<float>(19, NAN), {19}));
  for (const double v : to_doubles(to_dtype(nan, DType::kBF16).value())) EXPECT_TRUE(std::isnan(v));
}

TEST(Accumulate, AddsInTheWiderType) {
  const Tensor x = to_dtype(Variable(random_normal<float>({37}, 1)), DType::kBF16).value();
  const Tensor start = random_normal<float>({37}, 2);
  const Tensor sum = start.clone();
  accumulate(kCpu, {x, sum});
  const auto a = start.to_vector<float>();
  const auto b = x.to_vector<bfloat16>();
  const auto got = sum.to_vector<float>();
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], a[i] + static_cast<float>(b[i]));
}

TEST(Dropout, DropsWhatPhiloxSaysAtAnySize) {
  const double p = 0.3;
  for (const std::int64_t n : {1, 3, 255, 256, 257, 20001}) {
    const Tensor x = random_normal<float>({n}, 1, 1.0, 5.0);
    RandomKey key;
    {
      const RandomScope scope(11, 22);
      key = next_random_key();
    }
    const RandomScope scope(11, 22);
    const auto got = apply_dropout(Variable(x), p).value().to_vector<float>();
    const auto in = x.to_vector<float>();
    std::int64_t kept = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      const bool keep = philox_uniform(key, i) >= static_cast<float>(p);
      kept += keep ? 1 : 0;
      ASSERT_EQ(got[i], keep ? static_cast<float>(1.0 / (1.0 - p)) * in[i] : 0.0f) << i;
    }
    const double expected = (1.0 - p) * static_cast<double>(n);
    EXPECT_NEAR(static_cast<double>(kept), expected, 5.0 * std::sqrt(p * expected) + 1.0);
  }
}

TEST(Dropout, ADroppedInfinityIsZero) {
  const RandomScope scope(1, 1);
  const Variable x(Tensor::from<float>(std::vector<float>(300, INFINITY), {300}));
  for (const double v : to_doubles(apply_dropout(x, 0.5).value())) {
    EXPECT_TRUE(v == 0.0 || std::isinf(v));
  }
}

}  // namespace
}  // namespace carousel
