#include "core/ops/headwise.h"

#include <numeric>

#include "core/kernels/headwise.h"
#include "core/kernels/matmul.h"
#include "core/ops/check.h"

namespace carousel {
namespace {

/// `shape` with another last dimension.
Shape with_last(const Shape& shape, std::int64_t last) {
  std::vector<std::int64_t> dims(shape.dims().begin(), shape.dims().end());
  dims.back() = last;
  return Shape(dims);
}

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

std::vector<Variable> split(const Variable& x, const std::vector<std::int64_t>& sizes) {
  check_rows("split", "x", x);
  std::int64_t total = 0;
  for (const std::int64_t size : sizes) {
    op_check(size > 0, "split", "a piece of size {} from x {}", size, describe(x));
    total += size;
  }
  op_check(total == x.dim(-1), "split", "pieces ({}) of x {}", fmt::join(sizes, ", "), describe(x));
  const Shape flat{rows_of(x.shape()), total};
  const Tensor x2 = x.value().reshape(flat);
  std::vector<Tensor> pieces;
  std::int64_t column = 0;
  for (const std::int64_t size : sizes) {
    const Tensor piece = Tensor::empty({flat[0], size}, x.dtype(), x.device());
    copy_columns(x.device(), {.x = x2, .out = piece, .x_column = column, .columns = size});
    pieces.push_back(piece.reshape(with_last(x.shape(), size)));
    column += size;
  }
  return record("split", std::move(pieces), {x}, {}, [flat, sizes](BackwardContext& ctx) {
    Tensor dx;
    std::int64_t at = 0;
    for (std::size_t k = 0; k < sizes.size(); ++k) {
      const Tensor dy = ctx.grad_or_zeros(static_cast<int>(k)).reshape({flat[0], sizes[k]});
      if (!dx.defined()) dx = Tensor::empty(flat, dy.dtype(), dy.device());
      copy_columns(dy.device(), {.x = dy, .out = dx, .out_column = at, .columns = sizes[k]});
      at += sizes[k];
    }
    ctx.set(0, dx);
  });
}

Variable concat(const std::vector<Variable>& pieces) {
  op_check(!pieces.empty(), "concat", "no pieces");
  const Variable& first = pieces.front();
  check_rows("concat", "piece 0", first);
  std::vector<std::int64_t> sizes;
  for (const Variable& piece : pieces) {
    op_check(piece.defined() && piece.dtype() == first.dtype() &&
                 piece.device() == first.device() && piece.shape().rank() == first.shape().rank() &&
                 piece.dim(-1) > 0 && with_last(piece.shape(), 1) == with_last(first.shape(), 1),
             "concat", "piece {} {} against piece 0 {}", sizes.size(), describe(piece),
             describe(first));
    sizes.push_back(piece.dim(-1));
  }
  const std::int64_t rows = rows_of(first.shape());
  const std::int64_t total = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
  const Tensor out = Tensor::empty({rows, total}, first.dtype(), first.device());
  std::int64_t column = 0;
  for (const Variable& piece : pieces) {
    copy_columns(out.device(), {.x = piece.value().reshape({rows, piece.dim(-1)}),
                                .out = out,
                                .out_column = column,
                                .columns = piece.dim(-1)});
    column += piece.dim(-1);
  }
  return record("concat", out.reshape(with_last(first.shape(), total)), pieces, {},
                [rows, total, sizes](BackwardContext& ctx) {
                  const Tensor dy = ctx.grad(0).reshape({rows, total});
                  std::int64_t at = 0;
                  for (std::size_t k = 0; k < sizes.size(); ++k) {
                    const auto input = static_cast<int>(k);
                    if (ctx.needs(input)) {
                      const Tensor dx = Tensor::empty({rows, sizes[k]}, dy.dtype(), dy.device());
                      copy_columns(dy.device(),
                                   {.x = dy, .out = dx, .x_column = at, .columns = sizes[k]});
                      ctx.set(input, dx);
                    }
                    at += sizes[k];
                  }
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
