// Precision: operands in x's dtype, accumulation in float32, weight gradients in float32.
#include "core/ops/linear.h"

#include <vector>

#include "core/kernels/matmul.h"
#include "core/ops/check.h"

namespace carousel {

Variable linear(const Variable& x, const Variable& weight, const Variable& bias) {
  op_check(x.defined() && is_floating(x.dtype()) && x.shape().rank() >= 1, "linear", "x {}",
           describe(x));
  check_operand("linear", "weight", weight, x);
  op_check(weight.shape().rank() == 2 && weight.dim(1) == x.dim(-1) && weight.dtype() == x.dtype(),
           "linear", "weight {} against x {}", describe(weight), describe(x));
  const std::int64_t in = weight.dim(1);
  const std::int64_t out_features = weight.dim(0);
  if (bias.defined()) {
    check_operand("linear", "bias", bias, x);
    op_check(bias.shape() == Shape{out_features}, "linear", "bias {} against weight {}",
             describe(bias), describe(weight));
  }
  const std::int64_t rows = in == 0 ? 0 : x.value().numel() / in;
  std::vector<std::int64_t> dims(x.shape().dims().begin(), x.shape().dims().end());
  dims.back() = out_features;
  Tensor out = Tensor::empty(Shape(dims), x.dtype(), x.device());
  const Tensor x2 = x.value().reshape({rows, in});
  matmul(out.device(), {.a = x2,
                        .b = weight.value(),
                        .bias = bias.defined() ? bias.value() : Tensor{},
                        .out = out.reshape({rows, out_features}),
                        .transpose_b = true});
  return record(
      "linear", out, {x, weight, bias}, {x2, weight.value()},
      [rows, in, out_features](BackwardContext& ctx) {
        const Tensor& x2d = ctx.saved(0);
        const Tensor& w = ctx.saved(1);
        const Tensor dy = ctx.grad(0).reshape({rows, out_features});
        if (const Tensor dx = ctx.arrived(0); dx.defined()) {
          matmul(dx.device(), {.a = dy, .b = w, .out = dx.reshape({rows, in}), .accumulate = true});
        } else if (ctx.needs(0)) {
          const Tensor own = Tensor::empty({rows, in}, x2d.dtype(), x2d.device());
          matmul(own.device(), {.a = dy, .b = w, .out = own});
          ctx.set(0, own);
        }
        if (ctx.needs(1)) {
          matmul(dy.device(), {.a = dy,
                               .b = x2d,
                               .out = ctx.accumulator(1),
                               .transpose_a = true,
                               .accumulate = true});
        }
        if (ctx.needs(2)) column_sum(dy.device(), {dy, ctx.accumulator(2)});
      });
}

}  // namespace carousel
