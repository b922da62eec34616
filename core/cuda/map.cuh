// Elementwise kernels: out_j[i] = f(in_0[i], in_1[i], …) over whole tensors, in 16-byte accesses
// where the addresses allow it.
#pragma once

#include <cstdint>

#include "core/cuda/device.cuh"
#include "core/cuda/dispatch.h"
#include "core/cuda/launch.h"

namespace carousel::cuda {

template <class T, int Count>
struct Pointers {
  T* at[Count];
};

/// F has `void operator()(const float (&in)[Ins], float (&out)[Outs]) const`, and kUpdates = true
/// if it reads the outputs' old values. Outputs may alias inputs: a thread reads before it writes.
template <class F, class In, class Out, int Ins, int Outs, int N>
__global__ void __launch_bounds__(256)
    map_kernel(F f, std::int64_t n, Pointers<const In, Ins> in, Pointers<Out, Outs> out) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * N;
  if (i + N <= n) {
    float x[Ins][N];
    float y[Outs][N];
#pragma unroll
    for (int j = 0; j < Ins; ++j) load(in.at[j] + i, x[j]);
    if constexpr (F::kUpdates) {
#pragma unroll
      for (int j = 0; j < Outs; ++j) load(out.at[j] + i, y[j]);
    }
#pragma unroll
    for (int e = 0; e < N; ++e) {
      float arguments[Ins];
      float results[Outs];
#pragma unroll
      for (int j = 0; j < Ins; ++j) arguments[j] = x[j][e];
      if constexpr (F::kUpdates) {
#pragma unroll
        for (int j = 0; j < Outs; ++j) results[j] = y[j][e];
      }
      f(arguments, results);
#pragma unroll
      for (int j = 0; j < Outs; ++j) y[j][e] = results[j];
    }
#pragma unroll
    for (int j = 0; j < Outs; ++j) store(out.at[j] + i, y[j]);
    return;
  }
  for (std::int64_t k = i; k < n; ++k) {
    float arguments[Ins];
    float results[Outs];
    for (int j = 0; j < Ins; ++j) arguments[j] = to_float(in.at[j][k]);
    if constexpr (F::kUpdates) {
      for (int j = 0; j < Outs; ++j) results[j] = to_float(out.at[j][k]);
    }
    f(arguments, results);
    for (int j = 0; j < Outs; ++j) out.at[j][k] = from_float<Out>(results[j]);
  }
}

/// Runs F over n elements of tensors of one dtype In and one dtype Out.
template <class In, class Out, class F, std::size_t Ins, std::size_t Outs>
void map(const char* name, const F& f, const Tensor (&inputs)[Ins], const Tensor (&outputs)[Outs]) {
  constexpr int kIns = static_cast<int>(Ins);
  constexpr int kOuts = static_cast<int>(Outs);
  constexpr int kN = kVector < In >> kVector<Out> ? kVector<In> : kVector<Out>;
  constexpr int kThreads = 256;
  Pointers<const In, kIns> in{};
  Pointers<Out, kOuts> out{};
  bool aligned = true;
  for (std::size_t j = 0; j < Ins; ++j) {
    in.at[j] = data<In>(inputs[j]);
    aligned = aligned && aligned16(in.at[j]);
  }
  for (std::size_t j = 0; j < Outs; ++j) {
    out.at[j] = data<Out>(outputs[j]);
    aligned = aligned && aligned16(out.at[j]);
  }
  const Stream stream(outputs[0].device());
  const std::int64_t n = outputs[0].numel();
  if (aligned) {
    launch(name, stream, {grid_size(n, kThreads * kN), kThreads},
           map_kernel<F, In, Out, kIns, kOuts, kN>, f, n, in, out);
  } else {
    launch(name, stream, {grid_size(n, kThreads), kThreads}, map_kernel<F, In, Out, kIns, kOuts, 1>,
           f, n, in, out);
  }
}

}  // namespace carousel::cuda
