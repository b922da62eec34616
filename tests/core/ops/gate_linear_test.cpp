#include "core/ops/gate_linear.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "core/autograd/gradcheck.h"
#include "core/ops/elementwise.h"
#include "core/ops/linear.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

using testing::random_normal;
using testing::relative_error;

TEST(GateLinear, GradientsMatchDifferences) {
  const auto fn = [](const std::vector<Variable>& in) {
    const auto y = gate_linear({in[0]}, {in[1], in[2]}, {in[3], in[4]});
    // x is used before and after, so that its gradient is both started and joined.
    return std::vector<Variable>{y[0], y[1], scaled(in[0], 2.0)};
  };
  const auto result =
      gradcheck(fn, {random_normal<double>({2, 3, 5}, 1), random_normal<double>({7, 5}, 2),
                     random_normal<double>({7, 5}, 3), random_normal<double>({7}, 4),
                     random_normal<double>({7}, 5)});
  EXPECT_TRUE(result.ok) << result.report;
}

TEST(GateLinear, GradientsOfPiecesMatchDifferences) {
  const auto fn = [](const std::vector<Variable>& in) {
    const auto y = gate_linear({in[0], in[1], in[0]}, {in[2], in[3]}, {in[4], in[4]});
    return std::vector<Variable>{y[0], y[1], scaled(in[1], 2.0)};
  };
  const auto result =
      gradcheck(fn, {random_normal<double>({2, 3, 5}, 1), random_normal<double>({2, 3, 2}, 2),
                     random_normal<double>({7, 12}, 3), random_normal<double>({7, 12}, 4),
                     random_normal<double>({7}, 5)});
  EXPECT_TRUE(result.ok) << result.report;
}

TEST(GateLinear, PiecesAreOneInput) {
  const Variable a(random_normal<float>({9, 4}, 1));
  const Variable b(random_normal<float>({9, 2}, 2));
  std::vector<float> both;
  for (std::size_t r = 0; r < 9; ++r) {
    for (const auto& [piece, width] : {std::pair{a, 4U}, std::pair{b, 2U}}) {
      const auto x = piece.value().to_vector<float>();
      both.insert(both.end(), x.begin() + static_cast<std::ptrdiff_t>(r * width),
                  x.begin() + static_cast<std::ptrdiff_t>((r + 1) * width));
    }
  }
  const Variable w0(random_normal<float>({3, 6}, 3)), w1(random_normal<float>({3, 6}, 4));
  const Variable bias(random_normal<float>({3}, 5));
  const auto got = gate_linear({a, b}, {w0, w1}, {bias, bias});
  const auto want =
      gate_linear({Variable(Tensor::from<float>(both, {9, 6}))}, {w0, w1}, {bias, bias});
  EXPECT_LE(relative_error(got[0].value(), want[0].value()), 1e-6);
  EXPECT_LE(relative_error(got[1].value(), want[1].value()), 1e-6);
}

TEST(GateLinear, OneUnusedGateHasNoGradient) {
  const auto fn = [](const std::vector<Variable>& in) {
    return std::vector<Variable>{gate_linear({in[0]}, {in[1], in[1]}, {in[2], in[2]})[1]};
  };
  const auto result =
      gradcheck(fn, {random_normal<double>({4, 3}, 1), random_normal<double>({2, 3}, 2),
                     random_normal<double>({2}, 3)});
  EXPECT_TRUE(result.ok) << result.report;
}

TEST(GateLinear, Bf16InputsMultiplyAsIfWidened) {
  const Variable x = to_dtype(Variable(random_normal<float>({9, 33}, 1)), DType::kBF16);
  const Variable w0(random_normal<float>({3, 33}, 2));
  const Variable w1(random_normal<float>({3, 33}, 3));
  const Variable b(random_normal<float>({3}, 4));
  const auto y = gate_linear({x}, {w0, w1}, {b, b});
  const Variable wide = to_dtype(x, DType::kF32);
  EXPECT_EQ(y[0].dtype(), DType::kF32);
  EXPECT_LE(relative_error(y[0].value(), linear(wide, w0, b).value()), 1e-6);
  EXPECT_LE(relative_error(y[1].value(), linear(wide, w1, b).value()), 1e-6);
}

TEST(GateLinear, RefusesMismatchedShapesWithBothNamed) {
  const Variable x(random_normal<float>({2, 5}, 1));
  const Variable w(random_normal<float>({3, 5}, 1));
  const Variable b(random_normal<float>({3}, 1));
  const Variable other(random_normal<float>({4, 5}, 1));
  try {
    gate_linear({x}, {w, other}, {b, b});
    FAIL();
  } catch (const UsageError& e) {
    EXPECT_STREQ(
        e.what(),
        "[gate_linear] weight f32 (4, 5) on cpu against x f32 (2, 5) on cpu of 5 columns in "
        "all, the other weight f32 (3, 5) on cpu");
  }
  EXPECT_THROW(gate_linear({}, {w, w}, {b, b}), UsageError);
  EXPECT_THROW(gate_linear({x, other}, {w, w}, {b, b}), UsageError);
  EXPECT_THROW(gate_linear({x}, {w, w}, {b, Variable(random_normal<float>({4}, 1))}), UsageError);
  EXPECT_THROW(gate_linear({to_dtype(x, DType::kBF16)}, {to_dtype(w, DType::kBF16), w}, {b, b}),
               UsageError);
}

}  // namespace
}  // namespace carousel
