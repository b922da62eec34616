#include "core/comm/cuda/tree_sum.h"

#include "core/cuda/error.h"

namespace carousel::comm {
namespace {

constexpr int kThreads = 256;

template <class T, int kCount>
__global__ void tree_sum_kernel(const T* pieces, std::int64_t n, T* sum) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n; i += stride) {
    T x[kCount];
#pragma unroll
    for (int p = 0; p < kCount; ++p) x[p] = pieces[p * n + i];
#pragma unroll
    for (int half = 1; half < kCount; half *= 2) {
#pragma unroll
      for (int p = 0; p + half < kCount; p += 2 * half) x[p] += x[p + half];
    }
    sum[i] = x[0];
  }
}

template <class T, int kCount>
void run(const T* pieces, int count, std::int64_t n, T* sum, cudaStream_t stream) {
  if constexpr (kCount < kMaxTreeRanks) {
    if (count > kCount) return run<T, 2 * kCount>(pieces, count, n, sum, stream);
  }
  // Few blocks: most of the device belongs to the backward that goes on meanwhile.
  constexpr std::int64_t kMaxBlocks = 64;
  const std::int64_t blocks = std::min(kMaxBlocks, (n + kThreads - 1) / kThreads);
  tree_sum_kernel<T, kCount>
      <<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(pieces, n, sum);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace

template <class T>
void tree_sum(const T* pieces, int count, std::int64_t n, T* sum, cudaStream_t stream) {
  run<T, 1>(pieces, count, n, sum, stream);
}

template void tree_sum(const float*, int, std::int64_t, float*, cudaStream_t);
template void tree_sum(const double*, int, std::int64_t, double*, cudaStream_t);

}  // namespace carousel::comm
