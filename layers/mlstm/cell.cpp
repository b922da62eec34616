// Precision: q, k, v and h in their own dtype; gates, states and all arithmetic in its accumulation
// dtype (float32 for bf16). Saved for the backward besides the inputs: h, three numbers a token and
// head, and for the chunkwise form the state before each chunk.
#include "layers/mlstm/cell.h"

#include <utility>
#include <vector>

#include "core/kernels/elementwise.h"
#include "core/ops/check.h"

namespace carousel::mlstm {
namespace {

constexpr const char* kOp = "mlstm_cell";

void check_shape(const char* name, const Variable& value, const Shape& shape, DType dtype,
                 const Variable& q) {
  check_operand(kOp, name, value, q);
  op_check(value.shape() == shape && value.dtype() == dtype, kOp, "{} {}, expected {} {} for q {}",
           name, describe(value), name_of(dtype), shape, describe(q));
}

void check_inputs(const Variable& q, const Variable& k, const Variable& v, const Variable& i,
                  const Variable& f, const State& initial, const Tensor& reset,
                  const CellOptions& options) {
  op_check(q.defined() && q.shape().rank() == 4 && q.value().numel() > 0 &&
               (q.dtype() == DType::kF32 || q.dtype() == DType::kBF16 || q.dtype() == DType::kF64),
           kOp, "q {}, expected f32, bf16 or f64 (B, S, NH, DQK), not empty", describe(q));
  const std::int64_t batch = q.dim(0);
  const std::int64_t time = q.dim(1);
  const std::int64_t heads = q.dim(2);
  const DType accumulation = accumulation_dtype(q.dtype());
  check_shape("k", k, q.shape(), q.dtype(), q);
  op_check(v.defined() && v.shape().rank() == 4 && v.dim(3) > 0, kOp,
           "v {}, expected (B, S, NH, DV), not empty", describe(v));
  check_shape("v", v, {batch, time, heads, v.dim(3)}, q.dtype(), q);
  check_shape("i", i, {batch, time, heads}, accumulation, q);
  check_shape("f", f, {batch, time, heads}, accumulation, q);
  if (reset.defined()) {
    op_check(reset.shape() == Shape{batch, time} && reset.dtype() == DType::kU8 &&
                 reset.device() == q.device(),
             kOp, "reset {}, expected u8 {} for q {}", describe(reset), Shape{batch, time},
             describe(q));
  }
  if (initial.c.defined() || initial.n.defined() || initial.m.defined()) {
    check_shape("initial.c", initial.c, {batch, heads, q.dim(3), v.dim(3)}, accumulation, q);
    check_shape("initial.n", initial.n, {batch, heads, q.dim(3)}, accumulation, q);
    check_shape("initial.m", initial.m, {batch, heads}, accumulation, q);
  }
  op_check(options.chunk_size >= 1, kOp, "chunk_size {}, expected at least 1", options.chunk_size);
  op_check(options.eps >= 0.0, kOp, "eps {}, expected at least 0", options.eps);
}

Tensor value_or_none(const Variable& v) { return v.defined() ? v.value() : Tensor{}; }

// Outputs of the forward; what only the backward reads stays undefined unless it will be recorded.
CellForwardArgs allocate_forward(const CellInputs& in, const CellOptions& options, bool recorded) {
  const std::int64_t batch = in.q.dim(0);
  const std::int64_t time = in.q.dim(1);
  const std::int64_t heads = in.q.dim(2);
  const std::int64_t dqk = in.q.dim(3);
  const std::int64_t dv = in.v.dim(3);
  const DType accumulation = accumulation_dtype(in.q.dtype());
  const auto empty = [&](const Shape& shape) {
    return Tensor::empty(shape, accumulation, in.q.device());
  };
  CellForwardArgs args;
  args.in = in;
  args.h = empty_like(in.v);
  if (recorded) {
    args.normaliser = empty({batch, time, heads});
    args.denominator_sign = empty({batch, time, heads});
    args.stabiliser = empty({batch, time, heads});
  }
  if (recorded && options.form == Form::kChunkwise) {
    const SavedStates saved = saved_states(in);
    const std::int64_t chunks = (time + saved.chunk_size - 1) / saved.chunk_size;
    args.c_chunks = Tensor::empty({batch, heads, chunks, dqk, dv}, saved.dtype, in.q.device());
    args.n_chunks = empty({batch, heads, chunks, dqk});
    args.m_chunks = empty({batch, heads, chunks});
  }
  if (options.return_last_state) {
    args.c_last = empty({batch, heads, dqk, dv});
    args.n_last = empty({batch, heads, dqk});
    args.m_last = empty({batch, heads});
  }
  return args;
}

// Inputs of the node, in order: q, k, v, i, f, initial.c, initial.n; outputs: h, c_last, n_last.
enum Input { kQ, kK, kV, kI, kF, kC0, kN0 };
enum Output { kH, kCLast, kNLast };

std::vector<Tensor> to_save(const CellForwardArgs& args) {
  const CellInputs& in = args.in;
  return {in.q,
          in.k,
          in.v,
          in.i,
          in.f,
          in.reset,
          in.c0,
          in.n0,
          in.m0,
          args.h,
          args.normaliser,
          args.denominator_sign,
          args.stabiliser,
          args.c_chunks,
          args.n_chunks,
          args.m_chunks,
          args.c_last,
          args.n_last};
}

CellBackwardArgs saved_args(const BackwardContext& ctx, const CellOptions& options) {
  CellBackwardArgs args;
  Tensor* const slots[] = {&args.in.q,       &args.in.k,       &args.in.v,
                           &args.in.i,       &args.in.f,       &args.in.reset,
                           &args.in.c0,      &args.in.n0,      &args.in.m0,
                           &args.h,          &args.normaliser, &args.denominator_sign,
                           &args.stabiliser, &args.c_chunks,   &args.n_chunks,
                           &args.m_chunks,   &args.c_last,     &args.n_last};
  int index = 0;
  for (Tensor* slot : slots) *slot = ctx.saved(index++);
  args.in.gate = options.gate;
  args.in.eps = options.eps;
  args.in.chunk_size = options.chunk_size;
  return args;
}

void run_backward(BackwardContext& ctx, const CellOptions& options) {
  CellBackwardArgs args = saved_args(ctx, options);
  args.dh = ctx.grad_or_zeros(kH);
  if (args.dh.dtype() != args.h.dtype()) {
    Tensor rounded = empty_like(args.h);
    cast(rounded.device(), {args.dh, rounded});
    args.dh = rounded;
  }
  if (args.c_last.defined() && (ctx.grad(kCLast).defined() || ctx.grad(kNLast).defined())) {
    args.dc_last = ctx.grad_or_zeros(kCLast);
    args.dn_last = ctx.grad_or_zeros(kNLast);
  }
  const std::pair<Tensor*, const Tensor*> gradients[] = {
      {&args.dq, &args.in.q},  {&args.dk, &args.in.k}, {&args.dv, &args.in.v},
      {&args.di, &args.in.i},  {&args.df, &args.in.f}, {&args.dc0, &args.in.c0},
      {&args.dn0, &args.in.n0}};
  for (int k = kQ; k <= kN0; ++k) {
    if (ctx.needs(k)) *gradients[k].first = empty_like(*gradients[k].second);
  }
  cell_bwd[static_cast<int>(options.form)](args.h.device(), args);
  for (int k = kQ; k <= kN0; ++k) {
    if (ctx.needs(k)) ctx.set(k, *gradients[k].first);
  }
}

}  // namespace

CellResult cell(const Variable& q, const Variable& k, const Variable& v, const Variable& i,
                const Variable& f, const State& initial, const Tensor& reset,
                const CellOptions& options) {
  check_inputs(q, k, v, i, f, initial, reset, options);
  const CellInputs in{.q = q.value(),
                      .k = k.value(),
                      .v = v.value(),
                      .i = i.value(),
                      .f = f.value(),
                      .reset = reset,
                      .c0 = value_or_none(initial.c),
                      .n0 = value_or_none(initial.n),
                      .m0 = value_or_none(initial.m),
                      .gate = options.gate,
                      .eps = options.eps,
                      .chunk_size = options.chunk_size};
  const bool recorded = will_record({&q, &k, &v, &i, &f, &initial.c, &initial.n});
  const CellForwardArgs args = allocate_forward(in, options, recorded);
  cell_fwd[static_cast<int>(options.form)](q.device(), args);
  std::vector<Variable> outputs =
      record(kOp, {args.h, args.c_last, args.n_last}, {q, k, v, i, f, initial.c, initial.n},
             to_save(args), [options](BackwardContext& ctx) { run_backward(ctx, options); });
  CellResult result{.h = outputs[kH], .last = {outputs[kCLast], outputs[kNLast], {}}};
  if (args.m_last.defined()) result.last.m = Variable(args.m_last);
  return result;
}

}  // namespace carousel::mlstm
