#include "core/ops/linear.h"

#include <gtest/gtest.h>

#include "core/autograd/gradcheck.h"
#include "core/ops/elementwise.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

using testing::random_normal;
using testing::relative_error;

TEST(Linear, GradientsMatchDifferences) {
  const auto fn = [](const std::vector<Variable>& in) {
    return std::vector<Variable>{linear(in[0], in[1], in[2])};
  };
  const auto result =
      gradcheck(fn, {random_normal<double>({2, 3, 5}, 1), random_normal<double>({7, 5}, 2),
                     random_normal<double>({7}, 3)});
  EXPECT_TRUE(result.ok) << result.report;
}

TEST(Linear, Bf16IsWithinItsRounding) {
  const Tensor x = random_normal<float>({9, 33}, 1);
  const Tensor w = random_normal<float>({17, 33}, 2);
  const Variable wide = linear(Variable(x), Variable(w));
  const Variable narrow =
      linear(to_dtype(Variable(x), DType::kBF16), to_dtype(Variable(w), DType::kBF16));
  EXPECT_EQ(narrow.dtype(), DType::kBF16);
  EXPECT_LE(relative_error(narrow.value(), wide.value()), 0x1.0p-7);
}

TEST(Linear, RefusesMismatchedShapesWithBothNamed) {
  try {
    linear(Variable(random_normal<float>({2, 5}, 1)), Variable(random_normal<float>({7, 4}, 2)));
    FAIL();
  } catch (const UsageError& e) {
    EXPECT_STREQ(e.what(), "[linear] weight f32 (7, 4) on cpu against x f32 (2, 5) on cpu");
  }
}

}  // namespace
}  // namespace carousel
