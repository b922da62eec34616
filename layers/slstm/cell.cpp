// Precision: x and h in their own dtype; weights, states and all arithmetic in its accumulation
// dtype (float32 for bf16). Saved for the backward: seven numbers an element of h in that dtype.
#include "layers/slstm/cell.h"

#include <utility>
#include <vector>

#include "core/ops/check.h"

namespace carousel::slstm {
namespace {

constexpr const char* kOp = "slstm_cell";

void check_shape(const char* name, const Variable& value, const Shape& shape, DType dtype,
                 const Variable& x) {
  check_operand(kOp, name, value, x);
  op_check(value.shape() == shape && value.dtype() == dtype, kOp, "{} {}, expected {} {} for x {}",
           name, describe(value), name_of(dtype), shape, describe(x));
}

void check_inputs(const std::vector<Variable>& x, const Variable& r, const Variable& b,
                  const State& initial, const Tensor& reset) {
  const Variable& i = x[0];
  op_check(i.defined() && i.shape().rank() == 4 && i.value().numel() > 0 &&
               (i.dtype() == DType::kF32 || i.dtype() == DType::kBF16 || i.dtype() == DType::kF64),
           kOp, "i {}, expected f32, bf16 or f64 (B, S, NH, D), not empty", describe(i));
  check_shape("f", x[1], i.shape(), i.dtype(), i);
  check_shape("z", x[2], i.shape(), i.dtype(), i);
  check_shape("o", x[3], i.shape(), i.dtype(), i);
  const std::int64_t heads = i.dim(2);
  const std::int64_t size = i.dim(3);
  const DType accumulation = accumulation_dtype(i.dtype());
  check_shape("r", r, {heads, kNumGates, size, size}, accumulation, i);
  check_shape("b", b, {kNumGates, heads, size}, accumulation, i);
  const Shape tokens{i.dim(0), i.dim(1)};
  op_check(!reset.defined() || (reset.shape() == tokens && reset.dtype() == DType::kU8 &&
                                reset.device() == i.device()),
           kOp, "reset {}, expected u8 {} for x {}", describe(reset), tokens, describe(i));
  if (initial.h.defined() || initial.c.defined() || initial.n.defined() || initial.m.defined()) {
    const Shape state{i.dim(0), heads, size};
    check_shape("initial.h", initial.h, state, accumulation, i);
    check_shape("initial.c", initial.c, state, accumulation, i);
    check_shape("initial.n", initial.n, state, accumulation, i);
    check_shape("initial.m", initial.m, state, accumulation, i);
  }
}

Tensor value_or_none(const Variable& v) { return v.defined() ? v.value() : Tensor{}; }

// Outputs of the forward; what only the backward reads stays undefined unless it will be recorded.
void allocate_outputs(CellForwardArgs& args, bool recorded, bool return_last_state) {
  const Tensor& x = args.in.x[0];
  const std::int64_t batch = x.dim(0);
  const std::int64_t time = x.dim(1);
  const std::int64_t heads = x.dim(2);
  const std::int64_t size = x.dim(3);
  const auto empty = [&](const Shape& shape) {
    return Tensor::empty(shape, accumulation_dtype(x.dtype()), x.device());
  };
  args.h = empty_like(x);
  if (recorded) {
    args.gates = empty({time, batch, heads, kNumGates, size});
    args.states = empty({time, batch, heads, 2, size});
    args.forget_slope = empty({time, batch, heads, size});
  }
  if (return_last_state) {
    args.h_last = empty({batch, heads, size});
    args.c_last = empty({batch, heads, size});
    args.n_last = empty({batch, heads, size});
    args.m_last = empty({batch, heads, size});
  }
}

// The node's inputs: i, f, z, o, r, b, initial.h, .c, .n; its outputs: h, last.h, .c, .n; and what
// it saves.
enum Input { kX = 0, kR = kNumGates, kB, kH0, kC0, kN0 };
enum Output { kH, kHLast, kCLast, kNLast };
enum Saved { kSavedR, kSavedReset, kSavedH0, kSavedC0, kSavedN0, kSavedH, kGates, kStates, kSlope };

void run_backward(BackwardContext& ctx) {
  CellBackwardArgs args;
  args.in.r = ctx.saved(kSavedR);
  args.in.reset = ctx.saved(kSavedReset);
  args.in.h0 = ctx.saved(kSavedH0);
  args.in.c0 = ctx.saved(kSavedC0);
  args.in.n0 = ctx.saved(kSavedN0);
  args.h = ctx.saved(kSavedH);
  args.gates = ctx.saved(kGates);
  args.states = ctx.saved(kStates);
  args.forget_slope = ctx.saved(kSlope);
  args.dh = ctx.grad_or_zeros(kH);
  if (ctx.grad(kHLast).defined() || ctx.grad(kCLast).defined() || ctx.grad(kNLast).defined()) {
    args.dh_last = ctx.grad_or_zeros(kHLast);
    args.dc_last = ctx.grad_or_zeros(kCLast);
    args.dn_last = ctx.grad_or_zeros(kNLast);
  }
  for (int g = 0; g < kNumGates; ++g) {
    if (ctx.needs(kX + g)) args.dx[g] = empty_like(args.h);
  }
  if (ctx.needs(kR)) args.dr = ctx.accumulator(kR);
  if (ctx.needs(kB)) args.db = ctx.accumulator(kB);
  if (ctx.needs(kH0)) args.dh0 = empty_like(args.in.h0);
  if (ctx.needs(kC0)) args.dc0 = empty_like(args.in.c0);
  if (ctx.needs(kN0)) args.dn0 = empty_like(args.in.n0);
  cell_bwd(args.h.device(), args);
  for (int g = 0; g < kNumGates; ++g) {
    if (ctx.needs(kX + g)) ctx.set(kX + g, args.dx[g]);
  }
  if (ctx.needs(kH0)) ctx.set(kH0, args.dh0);
  if (ctx.needs(kC0)) ctx.set(kC0, args.dc0);
  if (ctx.needs(kN0)) ctx.set(kN0, args.dn0);
}

}  // namespace

CellResult cell(const Variable& i, const Variable& f, const Variable& z, const Variable& o,
                const Variable& r, const Variable& b, const State& initial, const Tensor& reset,
                bool return_last_state) {
  check_inputs({i, f, z, o}, r, b, initial, reset);
  CellForwardArgs args;
  args.in = {.x = {i.value(), f.value(), z.value(), o.value()},
             .r = r.value(),
             .b = b.value(),
             .reset = reset,
             .h0 = value_or_none(initial.h),
             .c0 = value_or_none(initial.c),
             .n0 = value_or_none(initial.n),
             .m0 = value_or_none(initial.m)};
  const bool recorded = will_record({&i, &f, &z, &o, &r, &b, &initial.h, &initial.c, &initial.n});
  allocate_outputs(args, recorded, return_last_state);
  cell_fwd(i.device(), args);
  std::vector<Variable> outputs = record(kOp, {args.h, args.h_last, args.c_last, args.n_last},
                                         {i, f, z, o, r, b, initial.h, initial.c, initial.n},
                                         {args.in.r, reset, args.in.h0, args.in.c0, args.in.n0,
                                          args.h, args.gates, args.states, args.forget_slope},
                                         run_backward);
  CellResult result{.h = outputs[kH],
                    .last = {outputs[kHLast], outputs[kCLast], outputs[kNLast], {}}};
  if (args.m_last.defined()) result.last.m = Variable(args.m_last);
  return result;
}

}  // namespace carousel::slstm
