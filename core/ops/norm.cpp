#include "core/ops/norm.h"

#include "core/ops/check.h"

namespace carousel {
namespace {

struct Inputs {
  Variable x, residual, weight, gate;
  std::int64_t row = 0;  // elements a row
};

void check(const char* op, const Inputs& in) {
  op_check(in.x.defined() && is_floating(in.x.dtype()) && in.x.shape().rank() >= 1 && in.row > 0,
           op, "x {}", describe(in.x));
  check_operand(op, "weight", in.weight, in.x);
  op_check(
      in.weight.dtype() == in.x.dtype() || in.weight.dtype() == accumulation_dtype(in.x.dtype()),
      op, "weight {} against x {}", describe(in.weight), describe(in.x));
  for (const auto& [name, other] :
       {std::pair{"residual", in.residual}, std::pair{"gate", in.gate}}) {
    if (!other.defined()) continue;
    op_check(other.value().numel() == in.x.value().numel() && other.dtype() == in.x.dtype() &&
                 other.device() == in.x.device(),
             op, "{} {} against x {}", name, describe(other), describe(in.x));
  }
}

// Outputs {sum (undefined without a residual), out}; out has out_shape.
std::vector<Variable> run(const char* op, const Inputs& in, const Shape& out_shape,
                          const NormOptions& options) {
  const Tensor& x = in.x.value();
  const DType wide = accumulation_dtype(x.dtype());
  const std::int64_t rows = x.numel() / in.row;
  const Shape flat{rows, in.row};
  const auto rows_of = [&](const Variable& v) {
    return v.defined() ? v.value().reshape(flat) : Tensor();
  };
  NormForwardArgs args{.options = options,
                       .x = x.reshape(flat),
                       .residual = rows_of(in.residual),
                       .weight = in.weight.value(),
                       .gate = rows_of(in.gate),
                       .out = Tensor::empty(flat, x.dtype(), x.device()),
                       .rstd = Tensor::empty({rows}, wide, x.device())};
  if (in.residual.defined()) args.sum = Tensor::empty(flat, x.dtype(), x.device());
  if (options.kind == NormKind::kLayer) args.mean = Tensor::empty({rows}, wide, x.device());
  norm_fwd(x.device(), args);

  const Tensor s = args.sum.defined() ? args.sum : args.x;
  const Tensor sum_out = args.sum.defined() ? args.sum.reshape(x.shape()) : Tensor();
  const auto backward = [options, flat](BackwardContext& ctx) {
    const auto grad_rows = [&](int output) {
      return ctx.grad(output).defined() ? ctx.grad(output).reshape(flat) : Tensor();
    };
    const Tensor& rows_x = ctx.saved(0);
    NormBackwardArgs b{.options = options,
                       .x = rows_x,
                       .weight = ctx.saved(1),
                       .gate = ctx.saved(2),
                       .mean = ctx.saved(3),
                       .rstd = ctx.saved(4),
                       .dout = ctx.grad_or_zeros(1).reshape(flat),
                       .dsum = grad_rows(0),
                       .dx = empty_like(rows_x)};
    if (b.gate.defined()) b.dgate = empty_like(b.gate);
    if (ctx.needs(2)) b.dweight = ctx.accumulator(2);
    norm_bwd(rows_x.device(), b);
    ctx.set(0, b.dx);
    ctx.set(1, b.dx);
    if (b.gate.defined()) ctx.set(3, b.dgate);
  };
  return record(op, {sum_out, args.out.reshape(out_shape)}, {in.x, in.residual, in.weight, in.gate},
                {s, args.weight, args.gate, args.mean, args.rstd}, backward);
}

}  // namespace

Variable norm(const Variable& x, const Variable& weight, const NormOptions& options) {
  const Inputs in{.x = x, .weight = weight, .row = x.defined() ? x.dim(-1) : 0};
  check("norm", in);
  op_check(weight.shape() == Shape{in.row}, "norm", "weight {} against x {}", describe(weight),
           describe(x));
  return run("norm", in, x.shape(), options)[1];
}

Normed residual_norm(const Variable& x, const Variable& residual, const Variable& weight,
                     const NormOptions& options) {
  const Inputs in{
      .x = x, .residual = residual, .weight = weight, .row = x.defined() ? x.dim(-1) : 0};
  check("residual_norm", in);
  op_check(residual.defined() && residual.shape() == x.shape() && weight.shape() == Shape{in.row},
           "residual_norm", "residual {}, weight {} against x {}", describe(residual),
           describe(weight), describe(x));
  const auto out = run("residual_norm", in, x.shape(), options);
  return {out[0], out[1]};
}

Variable head_norm(const Variable& h, const Variable& weight, const Variable& gate,
                   const NormOptions& options) {
  op_check(h.defined() && h.shape().rank() == 4, "head_norm", "h {}, expected (B, S, NH, D)",
           describe(h));
  const Inputs in{.x = h, .weight = weight, .gate = gate, .row = h.dim(3)};
  check("head_norm", in);
  const Shape out{h.dim(0), h.dim(1), h.dim(2) * h.dim(3)};
  op_check(weight.shape() == Shape{out[2]} && (!gate.defined() || gate.shape() == out), "head_norm",
           "weight {}, gate {} against h {}", describe(weight), describe(gate), describe(h));
  return run("head_norm", in, out, options)[1];
}

}  // namespace carousel
