// What the norms' forward and backward kernels share: how rows are laid over threads.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "core/cuda/device.cuh"
#include "core/cuda/dispatch.h"
#include "core/cuda/launch.h"
#include "core/kernels/norm.h"

namespace carousel::cuda {

inline constexpr int kNormThreads = 256;

/// `lanes` threads (a power of two) hold a row in registers, `vectors` vectors of kWidth elements
/// each; vector v of lane l is columns (v·lanes + l)·kWidth …. A block holds kNormThreads/lanes
/// rows. Rows that do not fit in a block's registers have no vectors: a block reads them once a
/// pass.
struct NormShape {
  int lanes = 1;
  int vectors = 1;
  bool wide = false;  ///< 16-byte vectors; else single elements
  bool streamed() const { return vectors == 0; }
  unsigned rows_per_block() const { return static_cast<unsigned>(kNormThreads / lanes); }
  dim3 block() const { return dim3(static_cast<unsigned>(lanes), rows_per_block()); }
};

/// The layout for rows of n elements, `width` of which fit in 16 bytes and may be accessed so if
/// `aligned`.
inline NormShape norm_shape(std::int64_t n, int width, bool aligned) {
  NormShape shape;
  shape.wide = aligned && n % width == 0;
  const std::int64_t vectors = shape.wide ? n / width : n;
  // Few vectors a thread: that leaves room for many threads, whose loads overlap.
  const int small = shape.wide ? 2 : 4;
  if (vectors <= kWarp) {
    shape.vectors = 1;
  } else if (vectors <= std::int64_t{kNormThreads} * small) {
    shape.vectors = small;
  } else if (shape.wide && vectors <= std::int64_t{kNormThreads} * 4) {
    shape.vectors = 4;
  } else {
    shape.vectors = 0;
    shape.lanes = kNormThreads;
    return shape;
  }
  const auto needed = static_cast<std::uint64_t>((vectors + shape.vectors - 1) / shape.vectors);
  shape.lanes = static_cast<int>(std::bit_ceil(std::max<std::uint64_t>(needed, 1)));
  return shape;
}

/// Calls f.template operator()<kWidth, kVectors>() for the shape; kVectors 0 for streamed rows.
template <class T, class F>
void dispatch_norm_shape(const NormShape& shape, F&& f) {
  if (shape.wide) {
    if (shape.vectors == 1) return f.template operator()<kVector<T>, 1>();
    if (shape.vectors == 2) return f.template operator()<kVector<T>, 2>();
    if (shape.vectors == 4) return f.template operator()<kVector<T>, 4>();
    return f.template operator()<kVector<T>, 0>();
  }
  if (shape.vectors == 1) return f.template operator()<1, 1>();
  if (shape.vectors == 4) return f.template operator()<1, 4>();
  return f.template operator()<1, 0>();
}

/// Waits for the threads of the own row, which are whole warps: rows do not wait for each other.
__device__ __forceinline__ void row_barrier(int lanes) {
  asm volatile("bar.sync %0, %1;" ::"r"(static_cast<int>(threadIdx.y) + 1), "r"(lanes) : "memory");
}

/// Sum over the row's lanes; every lane gets it. All threads of the row must take part.
__device__ __forceinline__ float row_sum(float x) {
  __shared__ float partial[kNormThreads / kWarp];
  const int lanes = static_cast<int>(blockDim.x);
  x = group_sum(x, min(lanes, kWarp));
  if (lanes <= kWarp) return x;
  const int row_warp = static_cast<int>(threadIdx.y) * lanes / kWarp;
  row_barrier(lanes);  // the sums of the call before have been read
  if (threadIdx.x % kWarp == 0) partial[row_warp + threadIdx.x / kWarp] = x;
  row_barrier(lanes);
  float sum = 0.0f;
  for (int w = 0; w < lanes / kWarp; ++w) sum += partial[row_warp + w];
  return sum;
}

/// weight, or 1 + weight: what is added to the stored weights.
inline float weight_offset(const NormOptions& options) {
  return options.weight_is_residual ? 1.0f : 0.0f;
}

}  // namespace carousel::cuda
