// What device code shares: vector accesses, conversions, fast functions, reductions.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace carousel::cuda {

using bf16 = __nv_bfloat16;

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

/// Elements of T in one 16-byte access.
template <class T>
inline constexpr int kVector = 16 / static_cast<int>(sizeof(T));

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
template <class T>
__device__ __forceinline__ T from_float(float x) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return x;
  } else {
    return __float2bfloat16_rn(x);
  }
}
/// x rounded to T, as float.
template <class T>
__device__ __forceinline__ float rounded(float x) {
  return to_float(from_float<T>(x));
}

/// N consecutive elements, moved in accesses of at most 16 bytes; the address must be a multiple of
/// the access's size.
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Packet {
  T at[N];
};

template <int N, class T>
__device__ __forceinline__ void load(const T* from, float (&to)[N]) {
  const auto packet = *reinterpret_cast<const Packet<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = to_float(packet.at[i]);
}

template <int N, class T>
__device__ __forceinline__ void store(T* to, const float (&from)[N]) {
  Packet<T, N> packet;
#pragma unroll
  for (int i = 0; i < N; ++i) packet.at[i] = from_float<T>(from[i]);
  *reinterpret_cast<Packet<T, N>*>(to) = packet;
}

/// N consecutive weights of either dtype (see Weights in dispatch.h).
template <int N, class W>
__device__ __forceinline__ void load_weights(const W& weights, std::int64_t i, float (&to)[N]) {
  if (weights.wide != nullptr) {
    load(weights.wide + i, to);
  } else {
    load(weights.narrow + i, to);
  }
}

/// Sum (maximum) over groups of `width` neighbouring lanes, a power of two; every lane gets it, and
/// the order is fixed.
__device__ __forceinline__ float group_sum(float x, int width = kWarp) {
  for (int offset = width / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}
__device__ __forceinline__ float group_max(float x, int width = kWarp) {
  for (int offset = width / 2; offset > 0; offset /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
  }
  return x;
}

/// 1/(1+e^−x) from the hardware's 2^x and 1/x: a few ulp.
__device__ __forceinline__ float fast_sigmoid(float x) {
  return __fdividef(1.0f, 1.0f + __expf(-x));  // 1/inf is 0 here, as it should be
}
/// tanh x alike; near zero by an odd polynomial, to keep the relative error small.
__device__ __forceinline__ float fast_tanh(float x) {
  const float a = fminf(fabsf(x), 10.0f);
  const float large = 1.0f - __fdividef(2.0f, __expf(2.0f * a) + 1.0f);
  const float s = a * a;
  float p = -5.70498872745e-3f;
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  return x != x ? x : copysignf(a < 0.625f ? a + a * s * p : large, x);
}

}  // namespace carousel::cuda
