#include "core/ops/elementwise.h"

#include "core/autograd/random.h"
#include "core/kernels/elementwise.h"
#include "core/ops/check.h"

namespace carousel {

Variable add(const Variable& a, const Variable& b) {
  op_check(a.defined() && b.defined() && a.shape() == b.shape() && a.dtype() == b.dtype() &&
               a.device() == b.device(),
           "add", "b {} against a {}", describe(b), describe(a));
  Tensor out = empty_like(a.value());
  add_fwd(out.device(), {a.value(), b.value(), out});
  return record("add", out, {a, b}, {}, [](BackwardContext& ctx) {
    ctx.set(0, ctx.grad(0));
    ctx.set(1, ctx.grad(0));
  });
}

Variable to_dtype(const Variable& x, DType dtype) {
  op_check(x.defined() && is_floating(x.dtype()) && is_floating(dtype), "cast", "x {} to {}",
           describe(x), name_of(dtype));
  if (x.dtype() == dtype) return x;
  Tensor out = Tensor::empty(x.shape(), dtype, x.device());
  cast(out.device(), {x.value(), out});
  return record("cast", out, {x}, {}, [from = x.dtype()](BackwardContext& ctx) {
    const Tensor& dy = ctx.grad(0);
    Tensor dx = Tensor::empty(dy.shape(), from, dy.device());
    cast(dx.device(), {dy, dx});
    ctx.set(0, dx);
  });
}

Variable scaled(const Variable& x, double alpha) {
  op_check(x.defined() && is_floating(x.dtype()), "scale", "x {}", describe(x));
  Tensor out = empty_like(x.value());
  scale(out.device(), {x.value(), out, alpha});
  return record("scale", out, {x}, {}, [alpha](BackwardContext& ctx) {
    Tensor dx = empty_like(ctx.grad(0));
    scale(dx.device(), {ctx.grad(0), dx, alpha});
    ctx.set(0, dx);
  });
}

Variable apply_dropout(const Variable& x, double p) {
  op_check(x.defined() && is_floating(x.dtype()) && p >= 0.0 && p < 1.0, "dropout",
           "x {}, p {} (0 <= p < 1)", describe(x), p);
  if (p == 0.0) return x;
  const RandomKey key = next_random_key();
  Tensor out = empty_like(x.value());
  dropout(out.device(), {x.value(), out, p, key});
  return record("dropout", out, {x}, {}, [p, key](BackwardContext& ctx) {
    Tensor dx = empty_like(ctx.grad(0));
    dropout(dx.device(), {ctx.grad(0), dx, p, key});
    ctx.set(0, dx);
  });
}

Variable reshape(const Variable& x, const Shape& shape) {
  op_check(x.defined() && x.shape().numel() == shape.numel(), "reshape", "x {} to {}", describe(x),
           shape);
  return record(
      "reshape", x.value().reshape(shape), {x}, {},
      [from = x.shape()](BackwardContext& ctx) { ctx.set(0, ctx.grad(0).reshape(from)); });
}

Variable sum(const Variable& x) {
  op_check(x.defined() && (x.dtype() == DType::kF32 || x.dtype() == DType::kF64), "sum", "x {}",
           describe(x));
  Tensor out = Tensor::empty({}, x.dtype(), x.device());
  sum_fwd(out.device(), {x.value(), out});
  return record("sum", out, {x}, {}, [shape = x.shape()](BackwardContext& ctx) {
    const Tensor& dy = ctx.grad(0);
    Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
    broadcast(dx.device(), {dy, dx});
    ctx.set(0, dx);
  });
}

}  // namespace carousel
