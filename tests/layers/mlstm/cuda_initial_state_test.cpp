// Gradients of the initial state, which is a pair: either half may be wanted alone.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/layers/mlstm/cell_case.h"
#include "tests/support/backward_args.h"
#include "tests/support/devices.h"

namespace carousel {
namespace {

using mlstm::Form;
using testing::Bench;
using testing::kForms;
using testing::kGpu;
using testing::name_of_form;
using testing::relative_error;

struct InitialGrads {
  Tensor dc0, dn0;  // undefined where not wanted
};

// No other gradient is computed. With the sigmoid gate no denominator is below 1, so that nothing
// magnifies rounding.
InitialGrads initial_grads(const Bench& bench, Form form, std::int64_t dqk, bool wants_c,
                           bool wants_n) {
  const std::int64_t batch = 2, time = 150, heads = 2, dv = 24;
  const Shape gates{batch, time, heads}, c{batch, heads, dqk, dv}, n{batch, heads, dqk};
  mlstm::CellForwardArgs forward;
  forward.in.q = bench.input({batch, time, heads, dqk}, 1);
  forward.in.k = bench.input({batch, time, heads, dqk}, 2);
  forward.in.v = bench.input({batch, time, heads, dv}, 3);
  forward.in.i = bench.wide_input(gates, 4);
  forward.in.f = bench.wide_input(gates, 5, 1.0, 5.0);
  forward.in.c0 = bench.wide_input(c, 6);
  forward.in.n0 = bench.wide_input(n, 7);
  forward.in.m0 = Tensor::zeros({batch, heads}, bench.accumulation(), bench.device());
  forward.in.gate = mlstm::InputGate::kSigmoid;
  forward.h = bench.output(forward.in.v.shape());
  forward.normaliser = bench.wide_output(gates);
  forward.denominator_sign = bench.wide_output(gates);
  forward.stabiliser = bench.wide_output(gates);
  mlstm::cell_fwd[static_cast<int>(form)](bench.device(), forward);
  mlstm::CellBackwardArgs backward = testing::backward_args(forward);
  backward.dh = bench.input(forward.h.shape(), 8);
  if (wants_c) backward.dc0 = bench.wide_output(c);
  if (wants_n) backward.dn0 = bench.wide_output(n);
  mlstm::cell_bwd[static_cast<int>(form)](bench.device(), backward);
  return {backward.dc0, backward.dn0};
}

// Sizes of the tiled kernels, and of the Hopper ones.
TEST(CudaMlstmInitialState, EitherHalfMayNeedAGradientAlone) {
  CAROUSEL_REQUIRE_CUDA();
  for (const std::int64_t dqk : {20, 64}) {
    for (const Form form : kForms) {
      const InitialGrads want = initial_grads(Bench(kCpu, DType::kF64), form, dqk, true, true);
      for (const auto& [dtype, tolerance] :
           std::vector<std::pair<DType, double>>{{DType::kF32, 1e-5}, {DType::kBF16, 1e-2}}) {
        for (const auto& [wants_c, wants_n] :
             std::vector<std::pair<bool, bool>>{{true, true}, {true, false}, {false, true}}) {
          const InitialGrads got = initial_grads(Bench(kGpu, dtype), form, dqk, wants_c, wants_n);
          const std::string what = fmt::format("{} {} dqk {}, dc0 {}, dn0 {}", name_of_form(form),
                                               name_of(dtype), dqk, wants_c, wants_n);
          if (wants_c) {
            EXPECT_LE(relative_error(got.dc0, want.dc0), tolerance) << what;
          }
          if (wants_n) {
            EXPECT_LE(relative_error(got.dn0, want.dn0), tolerance) << what;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace carousel
