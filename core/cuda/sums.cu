// Sums of all elements of a tensor, in float64 and in a fixed order: two stages, no atomics.
#include <algorithm>

#include "core/cuda/device.cuh"
#include "core/cuda/dispatch.h"
#include "core/cuda/kernels.h"
#include "core/cuda/launch.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/optimizer.h"

namespace carousel::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVector4 = kVector<float>;

__device__ double block_sum(double x) {
  __shared__ double partial[kThreads / kWarp];
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = x;
  __syncthreads();
  double sum = 0.0;
  for (int w = 0; w < kThreads / kWarp; ++w) sum += partial[w];
  return sum;
}

// partial[block] = the sum over every gridDim.x-th vector; the last elements go to block 0.
template <bool Squares>
__global__ void __launch_bounds__(kThreads)
    sum_partial_kernel(const float* x, std::int64_t n, bool aligned, double* partial) {
  const std::int64_t thread = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t threads = std::int64_t{gridDim.x} * kThreads;
  double sum = 0.0;
  const auto add = [&sum](float value) {
    sum += Squares ? static_cast<double>(value) * value : static_cast<double>(value);
  };
  const std::int64_t vectors = aligned ? n / kVector4 : 0;
#pragma unroll 4
  for (std::int64_t v = thread; v < vectors; v += threads) {
    float values[kVector4];
    load(x + v * kVector4, values);
#pragma unroll
    for (int e = 0; e < kVector4; ++e) add(values[e]);
  }
  for (std::int64_t i = vectors * kVector4 + thread; i < n; i += threads) add(x[i]);
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <class Out>
__global__ void __launch_bounds__(kThreads)
    sum_partials_kernel(const double* partial, int n, Out* out) {
  double sum = 0.0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *out = static_cast<Out>(sum);
}

template <bool Squares, class Out>
void sum_tensor(const char* name, const Tensor& values, const Tensor& out) {
  const Stream stream(values.device());
  const std::int64_t n = values.numel();
  const float* x = data<float>(values);
  const auto blocks = static_cast<unsigned>(
      std::clamp<std::int64_t>(n / (kThreads * kVector4), 1, 8 * stream.info().multiprocessors));
  const RoleScope role(Role::kWorkspace);
  const Tensor partial = Tensor::empty({blocks}, DType::kF64, values.device());
  launch(name, stream, {blocks, kThreads}, sum_partial_kernel<Squares>, x, n, aligned16(x),
         partial.data<double>());
  launch(name, stream, {1, kThreads}, sum_partials_kernel<Out>, partial.data<double>(), blocks,
         out.data<Out>());
}

template <class T>
__global__ void __launch_bounds__(kThreads) broadcast_kernel(const T* x, T* out, std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) out[i] = *x;
}

void broadcast_tensor(const BroadcastArgs& args) {
  dispatch_floating("broadcast", args.x.dtype(), [&]<class T>() {
    const std::int64_t n = args.out.numel();
    launch("broadcast", Stream(args.out.device()), {grid_size(n, kThreads), kThreads},
           broadcast_kernel<T>, data<T>(args.x), data<T>(args.out), n);
  });
}

}  // namespace

void register_sums() {
  sum_of_squares.set(DeviceType::kCuda, [](const SumOfSquaresArgs& args) {
    sum_tensor<true, double>("sum_of_squares", args.x, args.out);
  });
  sum_fwd.set(DeviceType::kCuda, [](const SumArgs& args) {
    if (args.x.dtype() == DType::kF64) {  // few: partial sums of the caller's
      launch("sum_fwd", Stream(args.x.device()), {1, kThreads}, sum_partials_kernel<double>,
             args.x.data<double>(), static_cast<int>(args.x.numel()), args.out.data<double>());
    } else {
      sum_tensor<false, float>("sum_fwd", args.x, args.out);
    }
  });
  broadcast.set(DeviceType::kCuda, broadcast_tensor);
}

}  // namespace carousel::cuda
