// Precision: x is widened to A in scratch memory; products and sums in A, dx rounded once.
#include "core/kernels/gate_linear.h"

#include "core/cpu/kernels.h"
#include "core/kernels/elementwise.h"
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

void forward(const GateLinearForwardArgs& args) {
  const Tensor x = in_dtype(args.x, accumulation_dtype(args.x.dtype()));
  for (std::size_t g = 0; g < kGates; ++g) {
    matmul(kCpu, {.a = x,
                  .b = args.weight[g],
                  .bias = args.bias[g],
                  .out = args.out[g],
                  .transpose_b = true});
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
                    .b = args.weight[g],
                    .out = dx,
                    .accumulate = g > 0 || args.accumulate_dx});
    }
    if (args.dx.dtype() != wide) cast(kCpu, {dx, args.dx});
  }
  const Tensor x = in_dtype(args.x, wide);
  for (std::size_t g = 0; g < kGates; ++g) {
    if (args.dweight[g].defined()) {
      matmul(kCpu, {.a = args.dout[g],
                    .b = x,
                    .out = args.dweight[g],
                    .transpose_a = true,
                    .accumulate = true});
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
