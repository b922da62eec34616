#include "layers/slstm/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "layers/slstm/cuda/mma_plan.h"
#include "tests/support/backward_args.h"
#include "tests/support/checker.h"
#include "tests/support/devices.h"

namespace carousel {
namespace {

using testing::Bench;
using testing::expect_cuda_matches_cpu;

struct SlstmCase {
  std::int64_t batch, time, heads, size;
  bool initial, reset;
};

void PrintTo(const SlstmCase& c, std::ostream* out) {  // GoogleTest's name
  *out << c.batch << "x" << c.time << "x" << c.heads << "x" << c.size;
}

// One block and several, ragged slices, 1 to 8 batch rows a cluster, and heads that do not fit on
// chip: more than 256 dimensions in float32, more than 768 in bf16. From 257 dimensions on bf16
// takes the split forward: slices of 32 and 48, and with 132 multiprocessors clusters of 1, 2 and 4
// batch rows. Of the heads of 257, 401, 530 and 600 the last cluster has one row, of 512 three.
const std::vector<SlstmCase> kCases = {
    {1, 1, 1, 1, false, false},  {3, 9, 2, 17, true, true},    {2, 12, 3, 64, true, true},
    {200, 4, 1, 16, true, true}, {301, 3, 1, 20, false, true}, {130, 3, 1, 72, true, true},
    {3, 7, 2, 96, true, true},   {2, 6, 1, 130, false, true},  {37, 5, 3, 192, true, true},
    {2, 8, 2, 256, true, false}, {3, 5, 2, 260, true, true},   {2, 4, 1, 300, false, false},
    {5, 4, 1, 700, true, true},  {2, 3, 1, 768, false, false}, {2, 2, 1, 776, true, true},
    {11, 6, 1, 401, true, true}, {23, 5, 1, 512, true, true},  {13, 4, 1, 257, false, true},
    {5, 3, 2, 600, true, true},  {9, 5, 2, 530, true, true},   {2, 70, 1, 520, false, true},
    {3, 1, 1, 640, true, false},
};

TEST(SlstmKernelCases, ReachEveryWidthAndHeightOfTheSplitForward) {
  constexpr int kH100 = 132;
  std::set<std::pair<int, int>> seen;
  for (const SlstmCase& c : kCases) {
    const auto plan = slstm::mma_plan(c.batch, c.heads, c.size, kH100, true);
    if (plan && plan->splits_forward()) seen.emplace(plan->slice, plan->rows);
  }
  const std::set<std::pair<int, int>> all{{32, 1}, {32, 2}, {32, 4}, {48, 1}, {48, 2}, {48, 4}};
  EXPECT_EQ(seen, all);
}

std::vector<std::uint8_t> some_resets(std::int64_t n) {
  std::vector<std::uint8_t> resets(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < resets.size(); ++i) resets[i] = philox_word({9, 0, 0}, i) % 4 == 0;
  return resets;
}

slstm::CellForwardArgs forward_args(const Bench& bench, const SlstmCase& c) {
  const Shape tokens{c.batch, c.time, c.heads, c.size};
  const Shape state{c.batch, c.heads, c.size};
  slstm::CellForwardArgs args;
  for (int g = 0; g < slstm::kNumGates; ++g) {
    args.in.x[g] = bench.input(tokens, static_cast<std::uint64_t>(g) + 1);
  }
  args.in.r = bench.wide_input({c.heads, slstm::kNumGates, c.size, c.size}, 5,
                               0.7 / std::sqrt(static_cast<double>(c.size)));
  args.in.b = bench.wide_input({slstm::kNumGates, c.heads, c.size}, 6);
  if (c.reset) args.in.reset = bench.bytes(some_resets(c.batch * c.time), {c.batch, c.time});
  if (c.initial) {
    args.in.h0 = bench.wide_input(state, 7, 0.5);
    args.in.c0 = bench.wide_input(state, 8);
    args.in.n0 = bench.wide_input(state, 9, 0.2, 1.5);
    args.in.m0 = bench.wide_input(state, 10);
  }
  args.h = bench.output(tokens);
  args.h_last = bench.wide_output(state);
  args.c_last = bench.wide_output(state);
  args.n_last = bench.wide_output(state);
  args.m_last = bench.wide_output(state);
  args.gates = bench.wide_output({c.time, c.batch, c.heads, slstm::kNumGates, c.size});
  args.states = bench.wide_output({c.time, c.batch, c.heads, 2, c.size});
  args.forget_slope = bench.wide_output({c.time, c.batch, c.heads, c.size});
  return args;
}

std::vector<Tensor> run_slstm(const Bench& bench, const SlstmCase& c) {
  const Shape tokens{c.batch, c.time, c.heads, c.size};
  const Shape state{c.batch, c.heads, c.size};
  const slstm::CellForwardArgs fwd = forward_args(bench, c);
  slstm::cell_fwd(bench.device(), fwd);
  slstm::CellBackwardArgs bwd = testing::backward_args(fwd);
  bwd.dh = bench.input(tokens, 11);
  for (Tensor& dx : bwd.dx) dx = bench.output(tokens);
  bwd.dr = bench.wide_input(fwd.in.r.shape(), 12);
  bwd.db = bench.wide_input(fwd.in.b.shape(), 13);
  if (c.initial) {
    bwd.dh_last = bench.wide_input(state, 14);
    bwd.dc_last = bench.wide_input(state, 15);
    bwd.dn_last = bench.wide_input(state, 16);
    bwd.dh0 = bench.wide_output(state);
    bwd.dc0 = bench.wide_output(state);
    bwd.dn0 = bench.wide_output(state);
  }
  slstm::cell_bwd(bench.device(), bwd);
  std::vector<Tensor> results{fwd.h,     fwd.h_last, fwd.c_last,       fwd.n_last, fwd.m_last,
                              fwd.gates, fwd.states, fwd.forget_slope, bwd.dx[0],  bwd.dx[1],
                              bwd.dx[2], bwd.dx[3],  bwd.dr,           bwd.db};
  if (c.initial) results.insert(results.end(), {bwd.dh0, bwd.dc0, bwd.dn0});
  return results;
}

// In bf16, dr and db are sums of rounded numbers here and of unrounded ones on the CPU.
constexpr double kBf16Slack = 0x1p-8;

class CudaSlstmCase : public ::testing::TestWithParam<SlstmCase> {};

TEST_P(CudaSlstmCase, MatchesTheCpuInBothDirections) {
  CAROUSEL_REQUIRE_CUDA();
  SlstmCase c = GetParam();
  if (testing::under_checker()) c.time = std::min<std::int64_t>(c.time, 12);
  expect_cuda_matches_cpu([&](const Bench& bench) { return run_slstm(bench, c); }, 4e-6,
                          kBf16Slack);
}

INSTANTIATE_TEST_SUITE_P(All, CudaSlstmCase, ::testing::ValuesIn(kCases));

class CudaSlstmSize : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(CudaSlstmSize, ComputesOnlyWhatIsAskedFor) {
  CAROUSEL_REQUIRE_CUDA();
  const SlstmCase c{2, 5, 1, GetParam(), false, true};
  expect_cuda_matches_cpu(
      [&](const Bench& bench) {
        slstm::CellForwardArgs all = forward_args(bench, c);
        slstm::cell_fwd(bench.device(), all);
        slstm::CellForwardArgs only_h;
        only_h.in = all.in;
        only_h.h = bench.output(all.h.shape());
        slstm::cell_fwd(bench.device(), only_h);
        slstm::CellBackwardArgs only_dr = testing::backward_args(all);
        only_dr.dh = bench.input(all.h.shape(), 11);
        only_dr.dr = bench.wide_input(all.in.r.shape(), 12);
        slstm::cell_bwd(bench.device(), only_dr);
        return std::vector<Tensor>{only_h.h, only_dr.dr};
      },
      4e-6, kBf16Slack);
}

INSTANTIATE_TEST_SUITE_P(All, CudaSlstmSize, ::testing::Values(24, 96, 260, 780));

}  // namespace
}  // namespace carousel
