// Precision: weights, results and sums in the accumulation dtype of x; x is saved as it is.
#include "core/ops/gate_linear.h"

#include <vector>

#include "core/kernels/gate_linear.h"
#include "core/ops/check.h"

namespace carousel {
namespace {

constexpr const char* kOp = "gate_linear";

// Inputs of the node, in order.
constexpr int kX = 0;
constexpr int kWeight = 1;
constexpr int kBias = kWeight + kGates;

void check(const Variable& x, const std::array<Variable, 2>& weight,
           const std::array<Variable, 2>& bias) {
  op_check(x.defined() && is_floating(x.dtype()) && x.shape().rank() >= 1, kOp, "x {}",
           describe(x));
  const DType wide = accumulation_dtype(x.dtype());
  for (std::size_t g = 0; g < kGates; ++g) {
    check_operand(kOp, "weight", weight[g], x);
    check_operand(kOp, "bias", bias[g], x);
    op_check(weight[g].shape().rank() == 2 && weight[g].dim(0) > 0 &&
                 weight[g].dim(1) == x.dim(-1) && weight[g].shape() == weight[0].shape() &&
                 weight[g].dtype() == wide,
             kOp, "weight {} against x {}, the other weight {}", describe(weight[g]), describe(x),
             describe(weight[0]));
    op_check(bias[g].shape() == Shape{weight[g].dim(0)} && bias[g].dtype() == wide, kOp,
             "bias {} against weight {}", describe(bias[g]), describe(weight[g]));
  }
}

void run_backward(BackwardContext& ctx) {
  const Tensor& x = ctx.saved(0);
  GateLinearBackwardArgs args{.x = x};
  for (int g = 0; g < kGates; ++g) {
    const auto i = static_cast<std::size_t>(g);
    const Tensor dout = ctx.grad_or_zeros(g);
    args.weight[i] = ctx.saved(1 + g);
    args.dout[i] = dout.reshape({x.dim(0), args.weight[i].dim(0)});
    if (ctx.needs(kWeight + g)) args.dweight[i] = ctx.accumulator(kWeight + g);
    if (ctx.needs(kBias + g)) args.dbias[i] = ctx.accumulator(kBias + g);
  }
  const Tensor arrived = ctx.arrived(kX);
  args.accumulate_dx = arrived.defined();
  if (args.accumulate_dx) {
    args.dx = arrived.reshape(x.shape());
  } else if (ctx.needs(kX)) {
    args.dx = empty_like(x);
  }
  gate_linear_bwd(x.device(), args);
  if (args.dx.defined() && !args.accumulate_dx) ctx.set(kX, args.dx);
}

}  // namespace

std::array<Variable, 2> gate_linear(const Variable& x, const std::array<Variable, 2>& weight,
                                    const std::array<Variable, 2>& bias) {
  check(x, weight, bias);
  const std::int64_t in = weight[0].dim(1);
  const std::int64_t rows = in == 0 ? 0 : x.value().numel() / in;
  std::vector<std::int64_t> dims(x.shape().dims().begin(), x.shape().dims().end());
  dims.back() = weight[0].dim(0);
  GateLinearForwardArgs args{.x = x.value().reshape({rows, in})};
  std::vector<Tensor> outputs;
  for (std::size_t g = 0; g < kGates; ++g) {
    outputs.push_back(Tensor::empty(Shape(dims), weight[g].dtype(), x.device()));
    args.weight[g] = weight[g].value();
    args.bias[g] = bias[g].value();
    args.out[g] = outputs[g].reshape({rows, dims.back()});
  }
  gate_linear_fwd(x.device(), args);
  const std::vector<Variable> out =
      record(kOp, outputs, {x, weight[0], weight[1], bias[0], bias[1]},
             {args.x, args.weight[0], args.weight[1]}, run_backward);
  return {out[0], out[1]};
}

}  // namespace carousel
