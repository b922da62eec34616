#include "core/kernels/norm.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"

namespace carousel {
namespace {

using testing::Bench;
using testing::expect_cuda_matches_cpu;

struct NormCase {
  std::int64_t tokens, groups, columns;
  NormKind kind;
  bool residual, gate, wide_weight;
};

// Every layout over threads: parts of a warp, a warp, several warps, 1, 2 and 4 vectors, rows that
// allow no vectors, and rows that no block holds.
const std::vector<NormCase> kCases = {
    {5, 1, 1, NormKind::kRms, false, false, true},
    {37, 1, 8, NormKind::kRms, true, false, true},
    {37, 3, 33, NormKind::kLayer, false, true, true},
    {9, 2, 64, NormKind::kLayer, true, true, false},
    {301, 4, 256, NormKind::kRms, false, true, true},
    {130, 1, 768, NormKind::kRms, true, false, false},
    {65, 1, 1000, NormKind::kLayer, true, true, true},
    {1031, 1, 1024, NormKind::kRms, true, false, true},
    {7, 1, 4096, NormKind::kRms, true, true, true},
    {3, 1, 1500, NormKind::kLayer, false, false, true},
    {4, 1, 4095, NormKind::kLayer, true, true, true},
    {3, 1, 12288, NormKind::kRms, true, true, true},
    {300, 2, 5001, NormKind::kLayer, true, true, true},
    {2, 1, 70000, NormKind::kLayer, false, false, false},
};

std::vector<Tensor> run_norm(const Bench& bench, const NormCase& c) {
  const NormOptions options{c.kind, c.residual,
                            1e-5};  // residual weights where there is a residual
  const std::int64_t rows = c.tokens * c.groups;
  const Shape shape{rows, c.columns};
  const std::int64_t weights = c.groups * c.columns;
  const double mean = c.kind == NormKind::kLayer ? 0.5 : 0.0;
  const Tensor x = bench.input(shape, 1, 1.0, mean);
  const Tensor residual = c.residual ? bench.input(shape, 2) : Tensor{};
  const Tensor gate = c.gate ? bench.input(shape, 3) : Tensor{};
  const Tensor weight = c.wide_weight ? bench.wide_input({weights}, 4) : bench.input({weights}, 4);
  const Tensor sum = c.residual ? bench.output(shape) : Tensor{};
  const Tensor out = bench.output(shape);
  const Tensor row_mean = c.kind == NormKind::kLayer ? bench.wide_output({rows}) : Tensor{};
  const Tensor rstd = bench.wide_output({rows});
  norm_fwd(bench.device(), {options, x, residual, weight, gate, sum, out, row_mean, rstd});

  const Tensor dx = bench.output(shape);
  const Tensor dgate = c.gate ? bench.output(shape) : Tensor{};
  const Tensor dweight = bench.wide_input({weights}, 5);
  norm_bwd(bench.device(), {.options = options,
                            .x = c.residual ? sum : x,
                            .weight = weight,
                            .gate = gate,
                            .mean = row_mean,
                            .rstd = rstd,
                            .dout = bench.input(shape, 6),
                            .dsum = c.residual ? bench.input(shape, 7) : Tensor{},
                            .dx = dx,
                            .dgate = dgate,
                            .dweight = dweight});
  std::vector<Tensor> results{out, rstd, dx, dweight};
  for (const Tensor& t : {sum, row_mean, dgate}) {
    if (t.defined()) results.push_back(t);
  }
  return results;
}

TEST(CudaNorm, MatchesTheCpuInBothDirections) {
  CAROUSEL_REQUIRE_CUDA();
  for (const NormCase& c : kCases) {
    SCOPED_TRACE(::testing::Message() << c.tokens << " x " << c.groups << " x " << c.columns);
    expect_cuda_matches_cpu([&](const Bench& bench) { return run_norm(bench, c); }, 2e-6);
  }
}

TEST(CudaNorm, BackwardWithoutWeightGradientIsFine) {
  CAROUSEL_REQUIRE_CUDA();
  expect_cuda_matches_cpu([](const Bench& bench) {
    const Shape shape{12, 40};
    const Tensor dx = bench.output(shape);
    norm_bwd(bench.device(), {.options = {},
                              .x = bench.input(shape, 1),
                              .weight = bench.wide_input({40}, 2),
                              .rstd = bench.wide_input({12}, 3, 0.1, 1.0),
                              .dout = bench.input(shape, 4),
                              .dx = dx});
    return std::vector<Tensor>{dx};
  });
}

}  // namespace
}  // namespace carousel
