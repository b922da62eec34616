#include "core/ops/headwise.h"

#include <gtest/gtest.h>

#include <tuple>

#include "core/autograd/gradcheck.h"
#include "core/base/parallel.h"
#include "core/ops/elementwise.h"
#include "tests/support/errors.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

using testing::message_of;
using testing::random_normal;
using testing::relative_error;
using testing::to_doubles;

Variable normal(const Shape& s) { return Variable(random_normal<float>(s, 1)); }

// Heads, outputs and inputs a head: the 4×4 blocks and others.
class HeadwiseTest
    : public ::testing::TestWithParam<std::tuple<std::int64_t, std::int64_t, std::int64_t>> {
 protected:
  std::int64_t heads() const { return std::get<0>(GetParam()); }
  std::int64_t out() const { return std::get<1>(GetParam()); }
  std::int64_t in() const { return std::get<2>(GetParam()); }
};

TEST_P(HeadwiseTest, MatchesTheDefinition) {
  constexpr std::int64_t kRows = 259;
  const Tensor x = random_normal<float>({7, 37, heads() * in()}, 1);
  const Tensor w = random_normal<float>({heads(), out(), in()}, 2);
  const auto xs = to_doubles(x);
  const auto ws = to_doubles(w);
  std::vector<double> want;
  for (std::int64_t r = 0; r < kRows; ++r) {
    for (std::int64_t h = 0; h < heads(); ++h) {
      for (std::int64_t o = 0; o < out(); ++o) {
        double sum = 0.0;
        for (std::int64_t d = 0; d < in(); ++d) {
          sum += ws[static_cast<std::size_t>((h * out() + o) * in() + d)] *
                 xs[static_cast<std::size_t>((r * heads() + h) * in() + d)];
        }
        want.push_back(sum);
      }
    }
  }
  const Variable y = headwise_linear(Variable(x), Variable(w));
  EXPECT_EQ(y.shape(), (Shape{7, 37, heads() * out()}));
  EXPECT_LE(relative_error(to_doubles(y.value()), want), 1e-6);
  const Variable narrow =
      headwise_linear(to_dtype(Variable(x), DType::kBF16), to_dtype(Variable(w), DType::kBF16));
  EXPECT_LE(relative_error(to_doubles(narrow.value()), want), 0x1.0p-7);
}

TEST_P(HeadwiseTest, GradientsMatchDifferences) {
  const auto fn = [](const std::vector<Variable>& v) {
    return std::vector<Variable>{headwise_linear(v[0], v[1])};
  };
  const auto result = gradcheck(fn, {random_normal<double>({2, 3, heads() * in()}, 1),
                                     random_normal<double>({heads(), out(), in()}, 2)});
  EXPECT_TRUE(result.ok) << result.report;
}

TEST_P(HeadwiseTest, LowPrecisionGradientsMatchFloat64OverManyRows) {
  const Shape rows{1031, heads() * in()};
  const auto run = [&](DType dtype) {
    const auto leaf = [&](const Shape& s, std::uint64_t seed) {
      const Variable v =
          to_dtype(to_dtype(Variable(random_normal<double>(s, seed)), DType::kBF16), dtype);
      return Variable::leaf(v.value(), Tensor::zeros(s, accumulation_dtype(dtype)));
    };
    const Variable x = leaf(rows, 1);
    const Variable w = leaf({heads(), out(), in()}, 2);
    const Variable dy = to_dtype(
        to_dtype(Variable(random_normal<double>({rows[0], heads() * out()}, 3)), DType::kBF16),
        dtype);
    backward(headwise_linear(x, w), dy.value());
    return std::pair{to_doubles(x.grad()), to_doubles(w.grad())};
  };
  const auto [dx, dw] = run(DType::kF64);
  const auto [dx_single, dw_single] = run(DType::kF32);
  EXPECT_LE(relative_error(dx_single, dx), 1e-6);
  EXPECT_LE(relative_error(dw_single, dw), 2e-6);
  const auto [dx_narrow, dw_narrow] = run(DType::kBF16);
  EXPECT_LE(relative_error(dx_narrow, dx), 0x1.0p-8);
  EXPECT_LE(relative_error(dw_narrow, dw), 2e-6);  // its operands are exact, its sums float32
}

INSTANTIATE_TEST_SUITE_P(Sizes, HeadwiseTest,
                         ::testing::Values(std::tuple{5, 4, 4}, std::tuple{3, 4, 5},
                                           std::tuple{1, 1, 1}, std::tuple{2, 7, 3}));

TEST(Headwise, AddsABiasOfEitherDtypeWhoseGradientMatchesDifferences) {
  const Variable x = normal({5, 3, 8});
  const Variable weight(random_normal<float>({2, 4, 4}, 2));
  const Variable bias(random_normal<float>({8}, 3));
  const auto with = to_doubles(headwise_linear(x, weight, bias).value());
  const auto without = to_doubles(headwise_linear(x, weight).value());
  for (std::size_t i = 0; i < with.size(); ++i) {
    EXPECT_NEAR(with[i], without[i] + to_doubles(bias.value())[i % 8], 1e-6);
  }
  const auto narrow = [](const Variable& v) { return to_dtype(v, DType::kBF16); };
  const Variable low = headwise_linear(narrow(x), narrow(weight), bias);
  EXPECT_EQ(low.dtype(), DType::kBF16);
  EXPECT_LE(relative_error(to_doubles(low.value()), with), 0x1.0p-7);
  const auto fn = [](const std::vector<Variable>& v) {
    return std::vector<Variable>{headwise_linear(v[0], v[1], v[2])};
  };
  const auto result =
      gradcheck(fn, {random_normal<double>({2, 3, 8}, 1), random_normal<double>({2, 4, 4}, 2),
                     random_normal<double>({8}, 3)});
  EXPECT_TRUE(result.ok) << result.report;
}

TEST(Headwise, RefusesMismatchedShapes) {
  EXPECT_EQ(
      message_of<UsageError>([] {
        headwise_linear(normal({2, 9}), normal({2, 4, 4}));
      }),
      "[headwise_linear] weight f32 (2, 4, 4) on cpu, expected (H, out, in) against x f32 (2, 9) "
      "on cpu");
  EXPECT_THROW(headwise_linear(Variable(), normal({2, 4, 4})), UsageError);
  EXPECT_EQ(message_of<UsageError>([] {
              headwise_linear(normal({2, 8}), normal({2, 4, 4}), normal({4}));
            }),
            "[headwise_linear] bias f32 (4) on cpu against an output f32 (2, 8) on cpu");
}

TEST(Skip, MatchesItsDefinitionAndGradientsMatchDifferences) {
  const Variable a = normal({3, 5});
  const Variable b(random_normal<float>({3, 5}, 2));
  const Variable scale(random_normal<float>({5}, 3));
  const auto y = to_doubles(skip(a, scale, b).value());
  for (std::size_t i = 0; i < y.size(); ++i) {
    EXPECT_NEAR(
        y[i],
        to_doubles(a.value())[i] * to_doubles(scale.value())[i % 5] + to_doubles(b.value())[i],
        1e-6);
  }
  const auto fn = [](const std::vector<Variable>& v) {
    return std::vector<Variable>{skip(v[0], v[1], v[2])};
  };
  const auto result =
      gradcheck(fn, {random_normal<double>({2, 3, 5}, 1), random_normal<double>({5}, 2),
                     random_normal<double>({2, 3, 5}, 3)});
  EXPECT_TRUE(result.ok) << result.report;
}

// Columns are cut where threads meet.
TEST(Skip, GradientsDoNotDependOnTheNumberOfThreads) {
  const auto run = [] {
    const auto leaf = [](const Shape& s, std::uint64_t seed) {
      const Tensor t = random_normal<float>(s, seed);
      return Variable::leaf(t, zeros_like(t));
    };
    const Variable a = leaf({700, 201}, 1);
    const Variable scale = leaf({201}, 2);
    backward(skip(a, scale, Variable(zeros_like(a.value()))), a.value());
    return std::pair{a.grad().to_vector<float>(), scale.grad().to_vector<float>()};
  };
  const int threads = num_threads();
  set_num_threads(1);
  const auto one = run();
  set_num_threads(3);
  EXPECT_EQ(run(), one);
  set_num_threads(threads);
}

TEST(Skip, Bf16IsWithinItsRoundingAndScaleMayBeFloat32) {
  const Variable a = to_dtype(normal({9, 33}), DType::kBF16);
  const Variable b = to_dtype(Variable(random_normal<float>({9, 33}, 2)), DType::kBF16);
  const Variable scale(random_normal<float>({33}, 3));
  const Variable wide = skip(to_dtype(a, DType::kF32), scale, to_dtype(b, DType::kF32));
  EXPECT_LE(relative_error(skip(a, scale, b).value(), wide.value()), 0x1.0p-8);
}

TEST(Skip, RefusesMismatchedShapes) {
  EXPECT_EQ(message_of<UsageError>([] {
              skip(normal({2, 6}), normal({5}), normal({2, 6}));
            }),
            "[skip] scale f32 (5) on cpu against a f32 (2, 6) on cpu");
  EXPECT_EQ(message_of<UsageError>([] {
              skip(normal({2, 6}), normal({6}), normal({6}));
            }),
            "[skip] b f32 (6) on cpu against a f32 (2, 6) on cpu");
}

}  // namespace
}  // namespace carousel
