// The gates' scalar functions and the stabiliser's recurrence as an associative scan.
#pragma once

#include "layers/mlstm/cuda/warp.cuh"

namespace carousel::mlstm::cuda {

__device__ __forceinline__ float log_sigmoid(float x) {
  return fminf(x, 0.0f) - log1pf(expf(-fabsf(x)));
}
__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/// m → max(m + add, low): what a run of tokens does to the stabiliser.
struct Advance {
  float add = 0.0f;
  float low = -INFINITY;

  Advance() = default;
  __device__ Advance(float a, float l) : add(a), low(l) {}
  /// One token; at a reset m starts from zero again.
  static __device__ Advance token(float log_forget, float input, bool reset) {
    return reset ? Advance(-INFINITY, fmaxf(log_forget, input)) : Advance(log_forget, input);
  }
  __device__ Advance then(const Advance& next) const {
    return {add + next.add, fmaxf(low + next.add, next.low)};
  }
  __device__ float operator()(float m) const { return fmaxf(m + add, low); }
};

/// Inclusive scan over the lanes of a warp.
__device__ __forceinline__ Advance scan(Advance x, int lane) {
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const Advance before(__shfl_up_sync(kFullWarp, x.add, offset),
                         __shfl_up_sync(kFullWarp, x.low, offset));
    if (lane >= offset) x = before.then(x);
  }
  return x;
}

}  // namespace carousel::mlstm::cuda
