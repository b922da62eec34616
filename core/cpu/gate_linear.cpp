// Precision: x is widened to A in scratch memory; products and sums in A, dx rounded once.
#include "core/kernels/gate_linear.h"

#include "core/cpu/kernels.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/headwise.h"
#include "core/kernels/matmul.h"

namespace carousel::cpu {
namespace {

// The tensor itself if it has the dtype, else a copy in scratch memory.
Tensor in_dtype(const Tensor& t, DType dtype) {
  if (t.dtype() == dtype) return t;
  const RoleScope role(Role::kWorkspace);
  Tensor copy = Tensor::empty(t.shape(), dtype);
  cast(kCpu, {t, copy});
  return copy;
}

// The weight's columns that meet x: itself if all do, else a copy.
Tensor columns_of(const Tensor& weight, std::int64_t column, std::int64_t count) {
  if (count == weight.dim(1)) return weight;
  const RoleScope role(Role::kWorkspace);
  Tensor copy = Tensor::empty({weight.dim(0), count}, weight.dtype());
  copy_columns(kCpu, {.x = weight, .out = copy, .x_column = column, .columns = count});
  return copy;
}

template <class T>
void add_to_columns(const Tensor& from, const Tensor& to, std::int64_t column) {
  const std::int64_t count = from.dim(1);
  for (std::int64_t r = 0; r < from.dim(0); ++r) {
    const T* const x = from.data<T>() + r * count;
    T* const y = to.data<T>() + r * to.dim(1) + column;
    for (std::int64_t c = 0; c < count; ++c) y[c] += x[c];
  }
}

void forward(const GateLinearForwardArgs& args) {
  const Tensor x = in_dtype(args.x, accumulation_dtype(args.x.dtype()));
  for (std::size_t g = 0; g < kGates; ++g) {
    matmul(kCpu, {.a = x,
                  .b = columns_of(args.weight[g], args.column, x.dim(1)),
                  .bias = args.bias[g],
                  .out = args.out[g],
                  .transpose_b = true,
                  .accumulate = !args.bias[g].defined()});
  }
}

// dweight += doutᵀ·x in x's columns.
void add_weight_gradient(const Tensor& dout, const Tensor& x, const Tensor& dweight,
                         std::int64_t column) {
  const bool all = x.dim(1) == dweight.dim(1);
  const RoleScope role(Role::kWorkspace);
  const Tensor sum = all ? dweight : Tensor::empty({dweight.dim(0), x.dim(1)}, dweight.dtype());
  matmul(kCpu, {.a = dout, .b = x, .out = sum, .transpose_a = true, .accumulate = all});
  if (all) return;
  if (sum.dtype() == DType::kF64) {
    add_to_columns<double>(sum, dweight, column);
  } else {
    add_to_columns<float>(sum, dweight, column);
  }
}

void backward(const GateLinearBackwardArgs& args) {
  const DType wide = accumulation_dtype(args.x.dtype());
  if (args.dx.defined()) {
    const RoleScope role(Role::kWorkspace);
    const Tensor dx = args.accumulate_dx || args.dx.dtype() == wide
                          ? in_dtype(args.dx, wide)
                          : Tensor::empty(args.dx.shape(), wide);
    for (std::size_t g = 0; g < kGates; ++g) {
      matmul(kCpu, {.a = args.dout[g],
                    .b = columns_of(args.weight[g], args.column, dx.dim(1)),
                    .out = dx,
                    .accumulate = g > 0 || args.accumulate_dx});
    }
    if (args.dx.dtype() != wide) cast(kCpu, {dx, args.dx});
  }
  const Tensor x = in_dtype(args.x, wide);
  for (std::size_t g = 0; g < kGates; ++g) {
    if (args.dweight[g].defined()) {
      add_weight_gradient(args.dout[g], x, args.dweight[g], args.column);
    }
    if (args.dbias[g].defined()) column_sum(kCpu, {args.dout[g], args.dbias[g]});
  }
}

}  // namespace

void register_gate_linear() {
  gate_linear_fwd.set(DeviceType::kCpu, forward);
  gate_linear_bwd.set(DeviceType::kCpu, backward);
}

}  // namespace carousel::cpu
