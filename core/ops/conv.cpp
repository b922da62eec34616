#include "core/ops/conv.h"

#include "core/kernels/conv.h"
#include "core/ops/check.h"

namespace carousel {
namespace {

constexpr const char* kOp = "causal_conv_silu";

void check(const Variable& x, const Variable& weight, const Variable& bias, const Tensor& reset,
           const Tensor& window) {
  op_check(x.defined() && is_floating(x.dtype()) && x.shape().rank() == 3 && x.value().numel() > 0,
           kOp, "x {}, expected (B, S, C), not empty", describe(x));
  const std::int64_t channels = x.dim(2);
  const auto has_dtype = [&](DType t) {
    return t == x.dtype() || t == accumulation_dtype(x.dtype());
  };
  check_operand(kOp, "weight", weight, x);
  const Shape& w = weight.shape();
  op_check((w.rank() == 2 || (w.rank() == 3 && w[1] == 1)) && w[0] == channels && w[-1] > 0 &&
               has_dtype(weight.dtype()),
           kOp, "weight {}, expected (C, 1, K) or (C, K) against x {}", describe(weight),
           describe(x));
  if (bias.defined()) {
    check_operand(kOp, "bias", bias, x);
    op_check(bias.shape() == Shape{channels} && has_dtype(bias.dtype()), kOp,
             "bias {} against x {}", describe(bias), describe(x));
  }
  if (reset.defined()) {
    op_check(reset.shape() == Shape{x.dim(0), x.dim(1)} && reset.dtype() == DType::kU8 &&
                 reset.device() == x.device(),
             kOp, "reset {} against x {}", describe(reset), describe(x));
  }
  if (window.defined()) {
    op_check(window.shape() == Shape{x.dim(0), w[-1] - 1, channels} &&
                 window.dtype() == x.dtype() && window.device() == x.device(),
             kOp, "window {}, expected (B, K-1, C) against x {} and weight {}", describe(window),
             describe(x), describe(weight));
  }
}

}  // namespace

Variable causal_conv_silu(const Variable& x, const Variable& weight, const Variable& bias,
                          const Tensor& reset, const Tensor& window, Tensor* window_last) {
  check(x, weight, bias, reset, window);
  const Shape filter{x.dim(2), weight.dim(-1)};
  ConvForwardArgs args{.x = x.value(),
                       .weight = weight.value().reshape(filter),
                       .bias = bias.defined() ? bias.value() : Tensor{},
                       .reset = reset,
                       .window = window,
                       .y = empty_like(x.value())};
  if (window_last != nullptr) {
    args.window_last = Tensor::empty({x.dim(0), filter[1] - 1, x.dim(2)}, x.dtype(), x.device());
  }
  conv_silu_fwd(x.device(), args);
  if (window_last != nullptr) *window_last = args.window_last;
  return record(kOp, args.y, {x, weight, bias}, {args.x, args.weight, args.bias, reset, window},
                [filter](BackwardContext& ctx) {
                  ConvBackwardArgs b{.x = ctx.saved(0),
                                     .weight = ctx.saved(1),
                                     .bias = ctx.saved(2),
                                     .reset = ctx.saved(3),
                                     .window = ctx.saved(4),
                                     .dy = ctx.grad(0)};
                  if (ctx.needs(0)) b.dx = empty_like(b.x);
                  if (ctx.needs(1)) b.dweight = ctx.accumulator(1).reshape(filter);
                  if (ctx.needs(2)) b.dbias = ctx.accumulator(2);
                  conv_silu_bwd(b.x.device(), b);
                  if (ctx.needs(0)) ctx.set(0, b.dx);
                });
}

}  // namespace carousel
