#include "core/ops/headwise.h"

#include <numeric>

#include "core/kernels/headwise.h"
#include "core/kernels/matmul.h"
#include "core/ops/check.h"

namespace carousel {
namespace {

std::int64_t rows_of(const Shape& shape) { return shape[-1] == 0 ? 0 : shape.numel() / shape[-1]; }

void check_rows(const char* op, const char* name, const Variable& x) {
  op_check(x.defined() && is_floating(x.dtype()) && x.shape().rank() >= 1 && x.value().numel() > 0,
           op, "{} {}, expected floating (…, D), not empty", name, describe(x));
}

// y + bias, over rows.
Variable add_bias(const Variable& y, const Variable& bias) {
  check_operand("headwise_linear", "bias", bias, y);
  op_check(bias.shape() == Shape{y.dim(-1)} &&
               (bias.dtype() == y.dtype() || bias.dtype() == accumulation_dtype(y.dtype())),
           "headwise_linear", "bias {} against an output {}", describe(bias), describe(y));
  const Shape flat{rows_of(y.shape()), y.dim(-1)};
  const Tensor out = empty_like(y.value());
  add_bias_fwd(out.device(), {y.value().reshape(flat), bias.value(), out.reshape(flat)});
  return record("add_bias", out, {y, bias}, {}, [flat](BackwardContext& ctx) {
    const Tensor& dy = ctx.grad(0);
    if (ctx.needs(1)) column_sum(dy.device(), {dy.reshape(flat), ctx.accumulator(1)});
    ctx.set(0, dy);
  });
}

}  // namespace

Variable headwise_linear(const Variable& x, const Variable& weight, const Variable& bias) {
  if (bias.defined()) return add_bias(headwise_linear(x, weight), bias);
  check_rows("headwise_linear", "x", x);
  check_operand("headwise_linear", "weight", weight, x);
  const Shape& w = weight.shape();
  op_check(
      w.rank() == 3 && w.numel() > 0 && weight.dtype() == x.dtype() && w[0] * w[2] == x.dim(-1),
      "headwise_linear", "weight {}, expected (H, out, in) against x {}", describe(weight),
      describe(x));
  const std::int64_t rows = rows_of(x.shape());
  const Tensor x2 = x.value().reshape({rows, x.dim(-1)});
  const Tensor y = Tensor::empty({rows, w[0] * w[1]}, x.dtype(), x.device());
  headwise_fwd(x.device(), {x2, weight.value(), y});
  return record("headwise_linear", y.reshape(with_last(x.shape(), y.dim(1))), {x, weight},
                {x2, weight.value()}, [rows, width = y.dim(1)](BackwardContext& ctx) {
                  HeadwiseBackwardArgs b{.x = ctx.saved(0),
                                         .weight = ctx.saved(1),
                                         .dy = ctx.grad(0).reshape({rows, width})};
                  if (ctx.needs(0)) b.dx = empty_like(b.x);
                  if (ctx.needs(1)) b.dweight = ctx.accumulator(1);
                  headwise_bwd(b.x.device(), b);
                  if (ctx.needs(0)) ctx.set(0, b.dx);
                });
}

Variable skip(const Variable& a, const Variable& scale, const Variable& b) {
  check_rows("skip", "a", a);
  check_operand("skip", "b", b, a);
  op_check(b.shape() == a.shape() && b.dtype() == a.dtype(), "skip", "b {} against a {}",
           describe(b), describe(a));
  check_operand("skip", "scale", scale, a);
  op_check(scale.shape() == Shape{a.dim(-1)} &&
               (scale.dtype() == a.dtype() || scale.dtype() == accumulation_dtype(a.dtype())),
           "skip", "scale {} against a {}", describe(scale), describe(a));
  const Shape flat{rows_of(a.shape()), a.dim(-1)};
  const Tensor a2 = a.value().reshape(flat);
  const Tensor y = empty_like(a2);
  skip_fwd(y.device(), {a2, scale.value(), b.value().reshape(flat), y});
  return record("skip", y.reshape(a.shape()), {a, scale, b}, {a2, scale.value()},
                [flat](BackwardContext& ctx) {
                  SkipBackwardArgs args{.a = ctx.saved(0),
                                        .scale = ctx.saved(1),
                                        .dy = ctx.grad(0).reshape(flat),
                                        .da = empty_like(ctx.saved(0))};
                  if (ctx.needs(1)) args.dscale = ctx.accumulator(1);
                  if (ctx.needs(0) || ctx.needs(1)) skip_bwd(args.a.device(), args);
                  ctx.set(0, args.da);
                  ctx.set(2, ctx.grad(0));
                });
}

}  // namespace carousel
