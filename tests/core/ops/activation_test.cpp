#include "core/ops/activation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/autograd/gradcheck.h"
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

double phi(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kGelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::kSigmoid:
      return 1.0 / (1.0 + std::exp(-x));
  }
  return NAN;
}

class GatedTest : public ::testing::TestWithParam<Activation> {};

TEST_P(GatedTest, MatchesItsDefinition) {
  const Tensor gate = random_normal<float>({7, 13}, 1, 3.0);
  const Tensor up = random_normal<float>({7, 13}, 2);
  const auto g = to_doubles(gate);
  auto want = to_doubles(up);
  for (std::size_t i = 0; i < want.size(); ++i) want[i] *= phi(GetParam(), g[i]);
  EXPECT_LE(
      relative_error(to_doubles(gated(Variable(gate), Variable(up), GetParam()).value()), want),
      1e-6);
}

TEST_P(GatedTest, GradientsMatchDifferences) {
  const auto fn = [](const std::vector<Variable>& in) {
    return std::vector<Variable>{gated(in[0], in[1], GetParam())};
  };
  const auto result =
      gradcheck(fn, {random_normal<double>({3, 5}, 1), random_normal<double>({3, 5}, 2)});
  EXPECT_TRUE(result.ok) << result.report;
}

TEST_P(GatedTest, PrecisionIsThatOfTheStorage) {
  const auto fn = [](const std::vector<Variable>& in) {
    return std::vector<Variable>{gated(in[0], in[1], GetParam())};
  };
  expect_precision(fn, {random_normal<float>({7, 33}, 1, 3.0), random_normal<float>({7, 33}, 2)},
                   1e-6, 0x1.0p-8);  // one rounding at each store
}

INSTANTIATE_TEST_SUITE_P(All, GatedTest,
                         ::testing::Values(Activation::kSilu, Activation::kGelu,
                                           Activation::kSigmoid));

TEST(SoftCap, BoundsItsValuesAndGradientsMatchDifferences) {
  const Tensor x = random_normal<float>({1001}, 1, 40.0);
  const auto y = to_doubles(soft_cap(Variable(x), 15.0).value());
  const auto in = to_doubles(x);
  for (std::size_t i = 0; i < y.size(); ++i) {
    EXPECT_NEAR(y[i], 15.0 * std::tanh(in[i] / 15.0), 1e-5);
  }
  const auto fn = [](const std::vector<Variable>& v) {
    return std::vector<Variable>{soft_cap(v[0], 2.0)};
  };
  const auto result = gradcheck(fn, {random_normal<double>({17}, 1, 2.0)});
  EXPECT_TRUE(result.ok) << result.report;
}

TEST(SoftCap, PrecisionIsThatOfTheStorage) {
  const auto fn = [](const std::vector<Variable>& in) {
    return std::vector<Variable>{soft_cap(in[0], 15.0)};
  };
  // The slope 1 − (y/cap)² comes from the rounded y, of relative error 2^-8: at worst the gradient
  // errs by 2·(y/cap)²·2^-8 besides its own rounding.
  expect_precision(fn, {random_normal<float>({1001}, 1, 10.0)}, 1e-6, 3 * 0x1.0p-8);
}

TEST(Activation, RefusesMismatchedOperandsAndNamesThem) {
  const Variable a(random_normal<float>({2, 3}, 1));
  expect_error<UsageError>(
      [&] {
        gated(a, Variable(random_normal<float>({3, 2}, 1)), Activation::kSilu);
      },
      {"[gated] up f32 (3, 2) on cpu against gate f32 (2, 3) on cpu"});
  expect_error<UsageError>([&] { gated(a, to_dtype(a, DType::kBF16), Activation::kSilu); },
                           {"[gated] up bf16 (2, 3) on cpu against gate f32 (2, 3) on cpu"});
  expect_error<UsageError>([&] { gated({}, a, Activation::kSilu); }, {"[gated] gate undefined"});
  expect_error<UsageError>([&] { soft_cap(a, 0.0); },
                           {"[soft_cap] x f32 (2, 3) on cpu, cap 0 (> 0)"});
  expect_error<UsageError>([&] { soft_cap(a, NAN); }, {"cap nan"});
}

}  // namespace
}  // namespace carousel
