// Precision: weights, results and sums in the accumulation dtype of x; x is saved as it is.
#include "core/ops/gate_linear.h"

#include <utility>
#include <vector>

#include "core/kernels/gate_linear.h"
#include "core/ops/check.h"

namespace carousel {
namespace {

constexpr const char* kOp = "gate_linear";

void check(const std::vector<Variable>& pieces, const std::array<Variable, 2>& weight,
           const std::array<Variable, 2>& bias) {
  op_check(!pieces.empty(), kOp, "no x");
  const Variable& x = pieces.front();
  std::int64_t columns = 0;
  for (const Variable& piece : pieces) {
    op_check(piece.defined() && is_floating(piece.dtype()) && piece.shape().rank() >= 1, kOp,
             "x {}", describe(piece));
    op_check(piece.dtype() == x.dtype() && piece.device() == x.device() &&
                 with_last(piece.shape(), 0) == with_last(x.shape(), 0),
             kOp, "x {} beside {}", describe(piece), describe(x));
    columns += piece.dim(-1);
  }
  const DType wide = accumulation_dtype(x.dtype());
  for (std::size_t g = 0; g < kGates; ++g) {
    check_operand(kOp, "weight", weight[g], x);
    check_operand(kOp, "bias", bias[g], x);
    op_check(weight[g].shape().rank() == 2 && weight[g].dim(0) > 0 && weight[g].dim(1) == columns &&
                 weight[g].shape() == weight[0].shape() && weight[g].dtype() == wide,
             kOp, "weight {} against x {} of {} columns in all, the other weight {}",
             describe(weight[g]), describe(x), columns, describe(weight[0]));
    op_check(bias[g].shape() == Shape{weight[g].dim(0)} && bias[g].dtype() == wide, kOp,
             "bias {} against weight {}", describe(bias[g]), describe(weight[g]));
  }
}

// Inputs of the node: the pieces, then weights and biases; saved are all but the biases.
void run_backward(BackwardContext& ctx, int pieces) {
  GateLinearBackwardArgs args;
  const int weight = pieces;
  const int bias = pieces + kGates;
  for (int g = 0; g < kGates; ++g) {
    const auto i = static_cast<std::size_t>(g);
    args.weight[i] = ctx.saved(weight + g);
    args.dout[i] = ctx.grad_or_zeros(g).reshape({ctx.saved(0).dim(0), args.weight[i].dim(0)});
    if (ctx.needs(weight + g)) args.dweight[i] = ctx.accumulator(weight + g);
    if (ctx.needs(bias + g)) args.dbias[i] = ctx.accumulator(bias + g);
  }
  for (int p = 0; p < pieces; ++p) {
    args.x = ctx.saved(p);
    const Tensor arrived = ctx.arrived(p);
    args.accumulate_dx = arrived.defined();
    args.dx = {};
    if (args.accumulate_dx) {
      args.dx = arrived.reshape(args.x.shape());
    } else if (ctx.needs(p)) {
      args.dx = empty_like(args.x);
    }
    gate_linear_bwd(args.x.device(), args);
    if (args.dx.defined() && !args.accumulate_dx) ctx.set(p, args.dx);
    args.dbias = {};
    args.column += args.x.dim(1);
  }
}

}  // namespace

std::array<Variable, 2> gate_linear(const std::vector<Variable>& pieces,
                                    const std::array<Variable, 2>& weight,
                                    const std::array<Variable, 2>& bias) {
  check(pieces, weight, bias);
  const Shape& first = pieces.front().shape();
  const std::int64_t n = weight[0].dim(0);
  const std::int64_t rows = with_last(first, 1).numel();
  GateLinearForwardArgs args;
  std::vector<Tensor> outputs;
  for (std::size_t g = 0; g < kGates; ++g) {
    outputs.push_back(Tensor::empty(with_last(first, n), weight[g].dtype(), weight[g].device()));
    args.weight[g] = weight[g].value();
    args.bias[g] = bias[g].value();
    args.out[g] = outputs[g].reshape({rows, n});
  }
  std::vector<Variable> inputs = pieces;
  std::vector<Tensor> saved;
  for (const Variable& piece : pieces) {
    args.x = piece.value().reshape({rows, piece.dim(-1)});
    gate_linear_fwd(args.x.device(), args);
    args.bias = {};
    args.column += piece.dim(-1);
    saved.push_back(args.x);
  }
  inputs.insert(inputs.end(), {weight[0], weight[1], bias[0], bias[1]});
  saved.insert(saved.end(), {args.weight[0], args.weight[1]});
  const auto count = static_cast<int>(pieces.size());
  const std::vector<Variable> out =
      record(kOp, outputs, std::move(inputs), std::move(saved),
             [count](BackwardContext& ctx) { run_backward(ctx, count); });
  return {out[0], out[1]};
}

}  // namespace carousel
