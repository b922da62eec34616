#include "layers/slstm/cuda/parameters.h"

#include "core/cuda/gemm.h"
#include "core/cuda/launch.h"
#include "core/kernels/matmul.h"
#include "layers/slstm/cuda/pointers.cuh"

namespace carousel::slstm {
namespace {

constexpr int kThreads = 256;

// previous[b, t] = the h that step t read: h[b, t − 1], the initial one, or zero at a start.
template <class T>
__global__ void __launch_bounds__(kThreads)
    slstm_previous_h_kernel(Sizes n, const T* h, const float* h0, const std::uint8_t* reset,
                            T* previous) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t row = n.heads * n.size;
  if (i >= n.batch * n.time * row) return;
  const std::int64_t sequence = i / (row * n.time);
  const std::int64_t t = i / row % n.time;
  float value = 0.0f;
  if (reset == nullptr || reset[sequence * n.time + t] == 0) {
    if (t > 0) {
      value = cuda::to_float(h[i - row]);
    } else if (h0 != nullptr) {
      value = h0[sequence * row + i % row];
    }
  }
  previous[i] = cuda::from_float<T>(value);
}

Tensor previous_h(const cuda::Stream& stream, const CellBackwardArgs& args) {
  const RoleScope role(Role::kWorkspace);
  Tensor previous = empty_like(args.h);
  cuda::dispatch_floating("slstm_bwd", args.h.dtype(), [&]<class T>() {
    cuda::launch("slstm_previous_h", stream, {cuda::grid_size(args.h.numel(), kThreads), kThreads},
                 slstm_previous_h_kernel<T>, Sizes::of(args.h), cuda::data<T>(args.h),
                 args.in.h0.data_or_null<float>(), args.in.reset.data_or_null<std::uint8_t>(),
                 cuda::data<T>(previous));
  });
  return previous;
}

}  // namespace

CellBackwardArgs with_gate_gradients(CellBackwardArgs args) {
  if (!args.dr.defined() && !args.db.defined()) return args;
  const RoleScope role(Role::kWorkspace);
  for (Tensor& dx : args.dx) {
    if (!dx.defined()) dx = empty_like(args.dh);
  }
  return args;
}

void accumulate_parameter_gradients(const cuda::Stream& stream, const CellBackwardArgs& args) {
  const Sizes n = Sizes::of(args.dh);
  const std::int64_t row = n.heads * n.size;
  if (args.dr.defined()) {
    const Tensor previous = previous_h(stream, args);
    for (int g = 0; g < kNumGates; ++g) {
      cuda::gemm(stream,
                 {.m = n.size,
                  .n = n.size,
                  .k = n.batch * n.time,
                  .transpose_a = true,
                  .dtype = args.h.dtype(),
                  .out_dtype = DType::kF32,
                  .lda = row,
                  .ldb = row,
                  .ldc = n.size,
                  .batch = n.heads,
                  .stride_a = n.size,
                  .stride_b = n.size,
                  .stride_c = kNumGates * n.size * n.size,
                  .accumulate = true},
                 args.dx[g].raw(), previous.raw(), args.dr.data<float>() + g * n.size * n.size);
    }
  }
  if (!args.db.defined()) return;
  for (int g = 0; g < kNumGates; ++g) {
    column_sum(args.dh.device(),
               {args.dx[g].reshape({n.batch * n.time, row}), args.db.range(g * row, {row})});
  }
}

}  // namespace carousel::slstm
