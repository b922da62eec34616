#include "core/kernels/gate_linear.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"

namespace carousel {
namespace {

using testing::Bench;
using testing::expect_cuda_matches_cpu;

struct GateCase {
  std::int64_t rows, columns, outputs;
  std::int64_t before = 0, after = 0;  // the weights' columns that belong to other pieces
};

TEST(CudaGateLinear, MatchesTheCpuInBothDirections) {
  CAROUSEL_REQUIRE_CUDA();
  // Part of a tile of outputs, a whole one and several; rows that allow no vectors; several chunks;
  // pieces.
  for (const GateCase& c :
       {GateCase{1, 1, 1}, GateCase{37, 33, 2}, GateCase{300, 128, 4}, GateCase{70, 260, 9},
        GateCase{9000, 64, 4}, GateCase{300, 128, 4, 64, 8}, GateCase{65, 132, 3, 1, 3},
        GateCase{65, 132, 3, 4, 3}}) {
    SCOPED_TRACE(::testing::Message() << c.rows << " x " << c.columns << " x " << c.outputs);
    expect_cuda_matches_cpu(
        [&](const Bench& bench) {
          const Shape by_output{c.rows, c.outputs};
          const Shape matrix{c.outputs, c.before + c.columns + c.after};
          const Tensor x = bench.input({c.rows, c.columns}, 1);
          const GateTensors weight{bench.wide_input(matrix, 2), bench.wide_input(matrix, 3)};
          const GateTensors out{bench.wide_output(by_output), bench.wide_output(by_output)};
          gate_linear_fwd(bench.device(), {.x = x,
                                           .weight = weight,
                                           .bias = {bench.wide_input({c.outputs}, 4),
                                                    bench.wide_input({c.outputs}, 5)},
                                           .out = out,
                                           .column = c.before});
          const GateTensors added{bench.wide_input(by_output, 12), bench.wide_input(by_output, 13)};
          gate_linear_fwd(bench.device(),
                          {.x = x, .weight = weight, .bias = {}, .out = added, .column = c.before});
          const GateTensors dout{bench.wide_input(by_output, 6), bench.wide_input(by_output, 7)};
          const Tensor dx = bench.output({c.rows, c.columns});
          const Tensor sum = bench.input({c.rows, c.columns}, 8);
          const Tensor wide_sum = bench.wide_input({c.rows, c.columns}, 8);
          GateLinearBackwardArgs args{
              .x = x,
              .weight = weight,
              .dout = dout,
              .dx = dx,
              .dweight = {bench.wide_input(matrix, 9), bench.wide_input(matrix, 10)},
              .dbias = {bench.wide_input({c.outputs}, 11), Tensor()},
              .column = c.before};
          gate_linear_bwd(bench.device(), args);
          for (const Tensor& into : {sum, wide_sum}) {
            gate_linear_bwd(bench.device(), {.x = x,
                                             .weight = weight,
                                             .dout = dout,
                                             .dx = into,
                                             .accumulate_dx = true,
                                             .column = c.before});
          }
          return std::vector<Tensor>{
              out[0], out[1],          added[0],        added[1],      dx,
              sum,    args.dweight[0], args.dweight[1], args.dbias[0], wide_sum};
        },
        2e-6);
  }
}

}  // namespace
}  // namespace carousel
