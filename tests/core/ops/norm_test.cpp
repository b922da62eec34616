#include "core/ops/norm.h"

#include <gtest/gtest.h>

#include <tuple>

#include "core/autograd/gradcheck.h"
#include "core/ops/elementwise.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

using testing::random_normal;
using testing::relative_error;
using testing::to_doubles;

// From the definition, one row at a time, in double.
std::vector<double> oracle(const std::vector<double>& x, const std::vector<double>& w, std::size_t n,
                           const NormOptions& options) {
  std::vector<double> out(x.size());
  for (std::size_t r = 0; r < x.size() / n; ++r) {
    double mean = 0.0;
    for (std::size_t j = 0; j < n; ++j) mean += x[r * n + j] / static_cast<double>(n);
    if (options.kind == NormKind::kRms) mean = 0.0;
    double variance = 0.0;
    for (std::size_t j = 0; j < n; ++j) {
      variance += (x[r * n + j] - mean) * (x[r * n + j] - mean) / static_cast<double>(n);
    }
    for (std::size_t j = 0; j < n; ++j) {
      const double scale = w[(r * n + j) % w.size()] + (options.weight_is_residual ? 1.0 : 0.0);
      out[r * n + j] = (x[r * n + j] - mean) / std::sqrt(variance + options.eps) * scale;
    }
  }
  return out;
}

class NormTest : public ::testing::TestWithParam<std::tuple<NormKind, bool, std::int64_t>> {
 protected:
  NormOptions options() const {
    return {.kind = std::get<0>(GetParam()), .weight_is_residual = std::get<1>(GetParam()),
            .eps = 1e-5};
  }
  std::int64_t dim() const { return std::get<2>(GetParam()); }
};

TEST_P(NormTest, MatchesTheDefinition) {
  const Tensor x = random_normal<float>({3, 5, dim()}, 1, 2.0, 0.7);
  const Tensor w = random_normal<float>({dim()}, 2);
  const Tensor y = norm(Variable(x), Variable(w), options()).value();
  const auto want =
      oracle(to_doubles(x), to_doubles(w), static_cast<std::size_t>(dim()), options());
  EXPECT_LE(relative_error(to_doubles(y), want), 1e-6);
}

TEST_P(NormTest, GradientsMatchDifferences) {
  const auto plain = [&](const std::vector<Variable>& in) {
    return std::vector<Variable>{norm(in[0], in[1], options())};
  };
  const Tensor x = random_normal<double>({2, 3, dim()}, 1);
  const Tensor w = random_normal<double>({dim()}, 2);
  const auto a = gradcheck(plain, {x, w});
  EXPECT_TRUE(a.ok) << a.report;
  const auto fused = [&](const std::vector<Variable>& in) {
    const Normed n = residual_norm(in[0], in[1], in[2], options());
    return std::vector<Variable>{n.sum, n.out};
  };
  const auto b = gradcheck(fused, {x, random_normal<double>({2, 3, dim()}, 3), w});
  EXPECT_TRUE(b.ok) << b.report;
}

INSTANTIATE_TEST_SUITE_P(Kinds, NormTest,
                         ::testing::Combine(::testing::Values(NormKind::kRms, NormKind::kLayer),
                                            ::testing::Bool(), ::testing::Values(2, 7, 33)));

TEST(HeadNorm, MatchesSeparateNormsAndGradientsMatchDifferences) {
  const NormOptions options{.kind = NormKind::kLayer};
  const auto fn = [&](const std::vector<Variable>& in) {
    return std::vector<Variable>{head_norm(in[0], in[1], in[2], options)};
  };
  const Tensor h = random_normal<double>({2, 3, 4, 5}, 1);
  const Tensor w = random_normal<double>({20}, 2);
  const Tensor gate = random_normal<double>({2, 3, 20}, 3);
  const auto result = gradcheck(fn, {h, w, gate});
  EXPECT_TRUE(result.ok) << result.report;

  auto want = oracle(to_doubles(h), to_doubles(w), 5, options);
  const auto ungated = to_doubles(head_norm(Variable(h), Variable(w), {}, options).value());
  EXPECT_LE(relative_error(ungated, want), 1e-12);
  const auto g = to_doubles(gate);
  for (std::size_t i = 0; i < want.size(); ++i) want[i] /= 1.0 + std::exp(-g[i]);
  EXPECT_LE(relative_error(to_doubles(fn({Variable(h), Variable(w), Variable(gate)})[0].value()),
                           want),
            1e-12);
}

TEST(Norm, Bf16KeepsFloat32StatisticsAndAFloat32Weight) {
  const Tensor x = random_normal<float>({9, 257}, 1, 1.0, 100.0);  // bf16 sums would lose the spread
  const Variable narrow = to_dtype(Variable(x), DType::kBF16);
  const Variable w(random_normal<float>({257}, 2));
  const Variable wide = to_dtype(narrow, DType::kF32);
  const NormOptions options{.kind = NormKind::kLayer};
  EXPECT_LE(relative_error(norm(narrow, w, options).value(), norm(wide, w, options).value()),
            0x1.0p-8);
}

TEST(Norm, RefusesMismatchedOperands) {
  const Variable x(random_normal<float>({2, 5}, 1));
  const Variable w(random_normal<float>({4}, 2));
  EXPECT_THROW(norm(x, w, {}), UsageError);
  EXPECT_THROW(residual_norm(x, Variable(random_normal<float>({5, 2}, 1)),
                             Variable(random_normal<float>({5}, 1)), {}),
               UsageError);
  EXPECT_THROW(head_norm(x, w, {}, {}), UsageError);
}

}  // namespace
}  // namespace carousel
