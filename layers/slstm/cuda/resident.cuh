// What the resident kernels share: clusters, the product with R in registers, the formulas' maths.
#pragma once

#include <cooperative_groups.h>

#include <cstdint>

#include "core/cuda/device.cuh"
#include "layers/slstm/cuda/plan.h"
#include "layers/slstm/pointwise.h"

namespace carousel::slstm {

using cuda::kAllLanes;

/// pointwise.h's functions on the device.
struct DeviceMath {
  static __device__ float exp(float x) { return __expf(x); }
  static __device__ float tanh(float x) { return cuda::fast_tanh(x); }
  static __device__ float sigmoid(float x) { return cuda::fast_sigmoid(x); }
  static __device__ float log_sigmoid(float x) {
    return fminf(x, 0.0f) - log1pf(__expf(-fabsf(x)));
  }
};

/// Waits for all blocks of the cluster and makes their writes to shared memory visible. Before
/// compute capability 9.0 a cluster is one block.
__device__ __forceinline__ void cluster_barrier([[maybe_unused]] int cluster) {
#if __CUDA_ARCH__ >= 900
  if (cluster > 1) return cooperative_groups::this_cluster().sync();
#endif
  __syncthreads();
}

/// The same place in the shared memory of the cluster's block `rank`.
__device__ __forceinline__ float* in_block(float* shared, [[maybe_unused]] int rank,
                                           [[maybe_unused]] int cluster) {
#if __CUDA_ARCH__ >= 900
  if (cluster > 1) {
    return cooperative_groups::this_cluster().map_shared_rank(shared, static_cast<unsigned>(rank));
  }
#endif
  return shared;
}

/// Where input k of a product lies in a row of shared memory.
__device__ __forceinline__ int segment_offset(int k) {
  return k / kSegment * kSegmentStride + k % kSegment;
}

/// sum[row][o] = Σ_j weights[o][j]·inputs[row][j] over the thread's own segment of the inputs.
template <int kRows>
__device__ __forceinline__ void multiply_segment(const float (&weights)[4][kSegment],
                                                 const float* inputs, int row_stride,
                                                 float (&sum)[kRows][4]) {
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
#pragma unroll
    for (int o = 0; o < 4; ++o) sum[row][o] = 0.0f;
#pragma unroll
    for (int j = 0; j < kSegment; j += 4) {
      const float4 x = *reinterpret_cast<const float4*>(inputs + row * row_stride + j);
#pragma unroll
      for (int o = 0; o < 4; ++o) {
        sum[row][o] += weights[o][j] * x.x;
        sum[row][o] += weights[o][j + 1] * x.y;
        sum[row][o] += weights[o][j + 2] * x.z;
        sum[row][o] += weights[o][j + 3] * x.w;
      }
    }
  }
}

/// Adds `sum` up over groups of `lanes` neighbouring threads, in a fixed order. Each lane keeps one
/// batch row's four sums: row lane / (lanes / kRows). Halving the rows at each exchange costs about
/// a quarter of the shuffles of summing them all everywhere.
template <int kRows>
__device__ __forceinline__ void reduce_rows(const float (&sum)[kRows][4], int lane, int lanes,
                                            float (&result)[4]) {
  float kept[kRows][4];
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
#pragma unroll
    for (int o = 0; o < 4; ++o) kept[row][o] = sum[row][o];
  }
  int distance = lanes / 2;
#pragma unroll
  for (int half = kRows / 2; half > 0; half /= 2) {
    const bool upper = (lane & distance) != 0;
#pragma unroll
    for (int row = 0; row < half; ++row) {
#pragma unroll
      for (int o = 0; o < 4; ++o) {
        const float mine = upper ? kept[row + half][o] : kept[row][o];
        const float other = upper ? kept[row][o] : kept[row + half][o];
        kept[row][o] = mine + __shfl_xor_sync(kAllLanes, other, distance);
      }
    }
    distance /= 2;
  }
#pragma unroll
  for (int o = 0; o < 4; ++o) result[o] = kept[0][o];
  for (; distance > 0; distance /= 2) {
#pragma unroll
    for (int o = 0; o < 4; ++o) result[o] += __shfl_xor_sync(kAllLanes, result[o], distance);
  }
}

}  // namespace carousel::slstm
