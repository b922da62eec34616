#include "core/ops/norm.h"

#include <gtest/gtest.h>

#include <tuple>

#include "core/autograd/gradcheck.h"
#include "core/base/parallel.h"
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

// From the definition, one row at a time, in double.
std::vector<double> oracle(const std::vector<double>& x, const std::vector<double>& w,
                           std::size_t n, const NormOptions& options) {
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
    return {.kind = std::get<0>(GetParam()),
            .weight_is_residual = std::get<1>(GetParam()),
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
  EXPECT_LE(
      relative_error(to_doubles(fn({Variable(h), Variable(w), Variable(gate)})[0].value()), want),
      1e-12);
}

// Per value two roundings to bf16 (after the normalisation and at the end), each at most 2^-8; per
// gradient of an activation one, and the gate's sees the unrounded product.
constexpr double kF32Error = 1e-6;
constexpr double kBf16Error = 0x1.0p-7;

TEST(Norm, PrecisionIsThatOfTheStorage) {
  for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
    const NormOptions options{.kind = kind};
    const auto fused = [&](const std::vector<Variable>& in) {
      const Normed n = residual_norm(in[0], in[1], in[2], options);
      return std::vector<Variable>{n.out};
    };
    expect_precision(fused,
                     {random_normal<float>({9, 257}, 1), Tensor::zeros({9, 257}, DType::kF32),
                      random_normal<float>({257}, 3)},
                     kF32Error, kBf16Error);
    const auto heads = [&](const std::vector<Variable>& in) {
      return std::vector<Variable>{head_norm(in[0], in[1], in[2], options)};
    };
    expect_precision(heads,
                     {random_normal<float>({2, 5, 3, 37}, 1), random_normal<float>({111}, 2),
                      random_normal<float>({2, 5, 111}, 3)},
                     kF32Error, kBf16Error);
  }
}

TEST(Norm, Bf16KeepsFloat32StatisticsAndAFloat32Weight) {
  const Tensor x =
      random_normal<float>({9, 257}, 1, 1.0, 100.0);  // bf16 sums would lose the spread
  const Variable narrow = to_dtype(Variable(x), DType::kBF16);
  const Variable w(random_normal<float>({257}, 2));
  const Variable wide = to_dtype(narrow, DType::kF32);
  const NormOptions options{.kind = NormKind::kLayer};
  EXPECT_LE(relative_error(norm(narrow, w, options).value(), norm(wide, w, options).value()),
            kBf16Error);
}

TEST(Norm, Bf16RoundsBeforeTheWeight) {
  const Variable x = to_dtype(Variable(random_normal<float>({7, 33}, 1)), DType::kBF16);
  const Variable w = to_dtype(Variable(random_normal<float>({33}, 2)), DType::kBF16);
  const Variable ones(Tensor::from<float>(std::vector<float>(33, 1.0f), {33}));
  const auto normed = to_doubles(norm(x, ones, {}).value());
  const auto weight = to_doubles(w.value());
  const auto got = norm(x, w, {}).value().to_vector<bfloat16>();
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].bits, bfloat16(static_cast<float>(normed[i] * weight[i % 33])).bits) << i;
  }
}

TEST(Norm, ResidualNormAddsTheGradientsOfBothOutputs) {
  const auto norm_alone = [](const std::vector<Variable>& in) {
    return std::vector<Variable>{residual_norm(in[0], in[1], in[2], {}).out};
  };
  const auto sum_alone = [](const std::vector<Variable>& in) {
    return std::vector<Variable>{residual_norm(in[0], in[1], in[2], {}).sum};
  };
  for (const auto& fn : {testing::OpUnderTest(norm_alone), testing::OpUnderTest(sum_alone)}) {
    const auto result =
        gradcheck(fn, {random_normal<double>({3, 5}, 1), random_normal<double>({3, 5}, 2),
                       random_normal<double>({5}, 3)});
    EXPECT_TRUE(result.ok) << result.report;
  }
}

TEST(Norm, ValuesDoNotDependOnTheNumberOfThreads) {
  const std::vector<Tensor> inputs = {random_normal<float>({501, 2, 3, 37}, 1),
                                      random_normal<float>({111}, 2),
                                      random_normal<float>({501, 2, 111}, 3)};
  const auto heads = [](const std::vector<Variable>& in) {
    return std::vector<Variable>{head_norm(in[0], in[1], in[2], {.kind = NormKind::kLayer})};
  };
  const int threads = num_threads();
  set_num_threads(1);
  const auto one = testing::values_and_gradients(heads, inputs, DType::kF32);
  set_num_threads(3);
  const auto three = testing::values_and_gradients(heads, inputs, DType::kF32);
  const auto again = testing::values_and_gradients(heads, inputs, DType::kF32);
  set_num_threads(threads);
  EXPECT_EQ(three, again);
  for (const std::size_t i : {0, 1, 3}) EXPECT_EQ(one[i], three[i]);  // all but the weight's
  EXPECT_LE(relative_error(three[2], one[2]), kF32Error);
}

TEST(Norm, RefusesMismatchedOperandsAndNamesThem) {
  const Variable x(random_normal<float>({2, 5}, 1));
  const Variable h(random_normal<float>({1, 2, 3, 5}, 1));
  const Variable w(random_normal<float>({4}, 2));
  const Variable w5(random_normal<float>({5}, 2));
  const Variable w15(random_normal<float>({15}, 2));
  expect_error<UsageError>([&] { norm(x, w, {}); },
                           {"[norm] weight f32 (4) on cpu against x f32 (2, 5) on cpu"});
  expect_error<UsageError>([&] { norm(x, {}, {}); }, {"[norm] weight undefined against x"});
  expect_error<UsageError>([&] { norm(x, Variable(random_normal<double>({5}, 2)), {}); },
                           {"[norm] weight f64 (5) on cpu against x f32 (2, 5)"});
  expect_error<UsageError>([&] { norm({}, w, {}); }, {"[norm] x undefined"});
  expect_error<UsageError>(
      [&] {
        residual_norm(x, Variable(random_normal<float>({5, 2}, 1)), w5, {});
      },
      {"[residual_norm] residual f32 (5, 2) on cpu", "against x f32 (2, 5) on cpu"});
  expect_error<UsageError>([&] { head_norm(x, w, {}, {}); },
                           {"[head_norm] h f32 (2, 5) on cpu, expected (B, S, NH, D)"});
  expect_error<UsageError>([&] { head_norm(h, w5, {}, {}); },
                           {"[head_norm] weight f32 (5) on cpu", "against h f32 (1, 2, 3, 5)"});
  expect_error<UsageError>(
      [&] {
        head_norm(h, w15, Variable(random_normal<float>({1, 2, 14}, 1)), {});
      },
      {"[head_norm] gate f32 (1, 2, 14) on cpu against x f32 (1, 2, 3, 5)"});
}

}  // namespace
}  // namespace carousel
