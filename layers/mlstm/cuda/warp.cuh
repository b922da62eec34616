// Warp and block reductions in a fixed order, and conversions of storage types.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace carousel::mlstm::cuda {

inline constexpr unsigned kFullWarp = 0xffffffffu;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ __forceinline__ T from_float(float x) {
  if constexpr (sizeof(T) == 2) {
    return __float2bfloat16(x);
  } else {
    return x;
  }
}

template <class T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(kFullWarp, x, offset);
  return x;
}

/// The sum over a block of `threads` threads, in thread 0.
template <int threads>
__device__ __forceinline__ float block_sum(float x) {
  __shared__ float partial[threads / 32];
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0.0f;
  if (threadIdx.x == 0) {
#pragma unroll
    for (int w = 0; w < threads / 32; ++w) sum += partial[w];
  }
  return sum;
}

/// 16 bytes of T.
template <class T>
struct alignas(16) Vector {
  static constexpr int kSize = 16 / static_cast<int>(sizeof(T));
  T x[kSize];
};

}  // namespace carousel::mlstm::cuda
