// What the bf16 kernels of the chunkwise form have to show besides.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "tests/layers/mlstm/cell_case.h"
#include "tests/layers/mlstm/each_kernels.h"
#include "tests/layers/mlstm/plain_bf16.h"
#include "tests/support/backward_args.h"
#include "tests/support/devices.h"

namespace carousel {
namespace {

using mlstm::Form;
using testing::Bench;
using testing::CellCase;
using testing::kGpu;
using testing::Named;
using testing::relative_error;
using testing::run_cell;

constexpr int kChunkwise = static_cast<int>(Form::kChunkwise);

// The arguments of a forward whose gates have this standard deviation; q is (B, S, NH, DQK).
mlstm::CellForwardArgs forward_args(const Bench& bench, const Shape& q, std::int64_t dv,
                                    double gate_std) {
  const Shape gates{q[0], q[1], q[2]};
  mlstm::CellForwardArgs args;
  args.in.q = bench.input(q, 1);
  args.in.k = bench.input(q, 2);
  args.in.v = bench.input({q[0], q[1], q[2], dv}, 3);
  args.in.i = bench.wide_input(gates, 4, gate_std);
  args.in.f = bench.wide_input(gates, 5, gate_std);
  args.h = bench.output(args.in.v.shape());
  args.normaliser = bench.wide_output(gates);
  args.denominator_sign = bench.wide_output(gates);
  args.stabiliser = bench.wide_output(gates);
  return args;
}

class CudaMlstmChunkwise : public testing::EachKernels {};
INSTANTIATE_TEST_SUITE_P(All, CudaMlstmChunkwise, testing::kAllKernels, testing::name_of_kernels);

// Extreme gates' denominators cancel, and 1/N multiplies h, its square dq. The gates' logarithms
// then reach hundreds within a block, where float32 rounds them at 1e-5: left in, that alone makes
// the error here 5e-5.
TEST_P(CudaMlstmChunkwise, ExtremeGatesKeepTheDenominatorsDigits) {
  CAROUSEL_REQUIRE_CUDA();
  const auto inverse = [](const Bench& bench) {
    mlstm::CellForwardArgs args = forward_args(bench, {1, 8192, 2, 64}, 8, 15.0);
    args.in.chunk_size = 128;
    mlstm::cell_fwd[kChunkwise](bench.device(), args);
    std::vector<double> n = testing::to_doubles(args.normaliser);
    for (double& x : n) x = 1.0 / x;
    return n;
  };
  EXPECT_LE(relative_error(inverse(Bench(kGpu, DType::kBF16)), inverse(Bench(kCpu, DType::kF64))),
            1.5e-5);
}

// All rows see one key alone, through the state, and one row's query is nearly orthogonal to it:
// its h is ±v, but the state's rounding to bf16 does not cancel as the product does. The same row
// outweighs all others in dC, and with it what the key's dv receives.
void expect_right_where_the_product_cancels(std::size_t dqk, std::size_t cancelling_row) {
  constexpr std::size_t kKey = 3, kDv = 128;
  const CellCase c{.batch = 1,
                   .time = 200,
                   .heads = 1,
                   .dqk = static_cast<std::int64_t>(dqk),
                   .dv = static_cast<std::int64_t>(kDv)};
  auto in = testing::make_inputs(c, 300);
  auto up = testing::make_upstream(c, false, 400);
  round_inputs(in, up);
  std::fill(in.i.begin(), in.i.end(), -60.0);
  std::fill(in.f.begin(), in.f.end(), 30.0);
  in.i[kKey] = 12.0;
  double* const q = &in.q[cancelling_row * dqk];
  const double* const k = &in.k[kKey * dqk];
  const auto largest = static_cast<std::size_t>(
      std::max_element(k, k + dqk, [](double a, double b) { return std::abs(a) < std::abs(b); }) -
      k);
  q[largest] = 0.0;
  const auto product = [&] { return std::inner_product(q, q + dqk, k, 0.0); };
  q[largest] = testing::rounded(-product() / k[largest]);
  ASSERT_LE(std::abs(product()), 0.05);
  ASSERT_GE(std::abs(product()), 0.002);
  const Named want = run_cell<double>(in, up, Form::kChunkwise, 64);
  const Named got = run_cell<bfloat16>(in, up, Form::kChunkwise, 128, kGpu);
  const auto row = [](const Named& list, std::size_t index, std::size_t t) {
    const auto begin = list[index].second.begin() + static_cast<std::ptrdiff_t>(t * kDv);
    return std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(kDv));
  };
  constexpr std::size_t kH = 0, kGradV = 6;
  ASSERT_EQ(want[kGradV].first, "dv");
  EXPECT_LE(relative_error(row(got, kH, cancelling_row), row(want, kH, cancelling_row)), 0.02);
  EXPECT_LE(relative_error(row(got, kGradV, kKey), row(want, kGradV, kKey)), 0.01);
}

// The Hopper kernels see the state from the next block of 64 tokens on, the others from the next
// chunk of 128; 100 columns are not whole vectors.
TEST_P(CudaMlstmChunkwise, AProductWithTheStateMayCancel) {
  CAROUSEL_REQUIRE_CUDA();
  for (const auto& [dqk, row] : std::vector<std::pair<std::size_t, std::size_t>>{
           {256, 100}, {256, 150}, {320, 150}, {100, 150}}) {
    SCOPED_TRACE(fmt::format("dqk {} row {}", dqk, row));
    expect_right_where_the_product_cancels(dqk, row);
  }
}

// Outputs are poisoned before: the copy engine writes most of them, which compute-sanitizer's
// initcheck does not see.
TEST_P(CudaMlstmChunkwise, EveryElementIsWritten) {
  CAROUSEL_REQUIRE_CUDA();
  const Bench bench(kGpu, DType::kBF16);
  for (const auto& [shape, dv] :
       std::vector<std::pair<Shape, std::int64_t>>{{{1, 300, 2, 256}, 512},
                                                   {{2, 257, 3, 96}, 192},
                                                   {{1, 64, 1, 64}, 72},
                                                   {{1, 130, 1, 384}, 136}}) {
    mlstm::CellForwardArgs fwd = forward_args(bench, shape, dv, 1.0);
    const mlstm::SavedStates saved = mlstm::saved_states(fwd.in);
    const std::int64_t chunks = (shape[1] + saved.chunk_size - 1) / saved.chunk_size;
    fwd.c_chunks = bench.output({shape[0], shape[2], chunks, shape[3], dv});
    fwd.n_chunks = bench.wide_output({shape[0], shape[2], chunks, shape[3]});
    fwd.c_last = bench.wide_output({shape[0], shape[2], shape[3], dv});
    fwd.n_last = bench.wide_output({shape[0], shape[2], shape[3]});
    mlstm::cell_fwd[kChunkwise](kGpu, fwd);
    mlstm::CellBackwardArgs bwd = testing::backward_args(fwd);
    bwd.dh = bench.input(fwd.h.shape(), 6);
    bwd.dq = bench.output(shape);
    bwd.dk = bench.output(shape);
    bwd.dv = bench.output(fwd.h.shape());
    bwd.di = bench.wide_output(fwd.normaliser.shape());
    bwd.df = bench.wide_output(fwd.normaliser.shape());
    mlstm::cell_bwd[kChunkwise](kGpu, bwd);
    int index = 0;
    for (const Tensor& t :
         {fwd.h, fwd.normaliser, fwd.denominator_sign, fwd.stabiliser, fwd.c_chunks, fwd.n_chunks,
          fwd.c_last, fwd.n_last, bwd.dq, bwd.dk, bwd.dv, bwd.di, bwd.df}) {
      const std::vector<double> x = testing::to_doubles(t);
      EXPECT_TRUE(std::all_of(x.begin(), x.end(), [](double e) { return std::isfinite(e); }))
          << "dqk " << shape[3] << " dv " << dv << ", tensor " << index;
      ++index;
    }
  }
}

}  // namespace
}  // namespace carousel
