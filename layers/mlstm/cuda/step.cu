// One step of decoding. The work is reading and writing the state: a CTA takes 32 columns (128
// bytes) of every row, four columns a thread, and keeps all of a thread's rows in flight at once.
#include "core/cuda/launch.h"
#include "layers/mlstm/cuda/gate_math.cuh"
#include "layers/mlstm/cuda/scan.h"

namespace carousel::mlstm::cuda {
namespace {

using carousel::cuda::grid_size;
using carousel::cuda::launch;
using carousel::cuda::Stream;

constexpr int kThreads = 256;
constexpr int kColumns = 32;                           // of the state a CTA
constexpr int kRowGroups = kThreads / (kColumns / 4);  // rows at a time
constexpr int kInFlight = 8;                           // rows a thread loads before using them

template <class T>
__global__ void __launch_bounds__(kThreads) step_kernel(Problem p, StepArgs<T> args, bool vectors) {
  extern __shared__ float heads[];  // [2][DQK]: q and Î·k
  __shared__ float partial[kThreads / 32][kColumns];
  float* q = heads;
  float* k = heads + p.dqk;
  const int slices = (p.dv + kColumns - 1) / kColumns;
  const int unit = static_cast<int>(blockIdx.x) / slices;
  const int slice = static_cast<int>(blockIdx.x) % slices;
  const int thread = static_cast<int>(threadIdx.x);

  const GateInputs& gates = args.gates;
  const bool has_state = args.c0 != nullptr;
  const bool reset = gates.reset != nullptr && gates.reset[unit / p.heads] != 0;
  const float log_forget = log_sigmoid(gates.f[unit]);
  const float input_gate = gates.exponential ? gates.i[unit] : log_sigmoid(gates.i[unit]);
  const float m_before = gates.exponential && gates.m0 != nullptr && !reset ? gates.m0[unit] : 0.0f;
  const float m = gates.exponential ? fmaxf(log_forget + m_before, input_gate) : 0.0f;
  const float forget = reset || !has_state ? 0.0f : expf(log_forget - (m - m_before));
  const float input = expf(input_gate - m);

  float n_q = 0.0f;
  const std::int64_t head = static_cast<std::int64_t>(unit) * p.dqk;
  for (int d = thread; d < p.dqk; d += kThreads) {
    q[d] = to_float(args.q[head + d]);
    k[d] = input * to_float(args.k[head + d]);
    const float n = (forget == 0.0f ? 0.0f : forget * args.n0[head + d]) + k[d];
    n_q = fmaf(n, q[d], n_q);
    if (slice == 0 && args.n_last != nullptr) args.n_last[head + d] = n;
  }
  if (slice == 0 && thread == 0 && args.m_last != nullptr) args.m_last[unit] = m;
  const float n_q_sum = block_sum<kThreads>(n_q);
  __shared__ float inverse;
  if (thread == 0) {
    inverse = p.scale / (fmaxf(fabsf(p.scale * n_q_sum), expf(-m)) + args.eps);
  }
  __syncthreads();

  const int column = slice * kColumns + thread % (kColumns / 4) * 4;
  float v[4], h[4] = {};
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const bool inside = column + e < p.dv;
    v[e] = inside ? to_float(args.v[static_cast<std::int64_t>(unit) * p.dv + column + e]) : 0.0f;
  }
  const std::int64_t state = static_cast<std::int64_t>(unit) * p.dqk * p.dv + column;
  for (int begin = thread / (kColumns / 4); begin < p.dqk; begin += kInFlight * kRowGroups) {
    float c[kInFlight][4] = {};
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int row = begin + i * kRowGroups;
      if (forget == 0.0f || row >= p.dqk) continue;
      const float* from = args.c0 + state + static_cast<std::int64_t>(row) * p.dv;
      if (vectors && column < p.dv) {
        *reinterpret_cast<float4*>(c[i]) = *reinterpret_cast<const float4*>(from);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (column + e < p.dv) c[i][e] = from[e];
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int row = begin + i * kRowGroups;
      if (row >= p.dqk) continue;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        c[i][e] = fmaf(forget, c[i][e], k[row] * v[e]);
        h[e] = fmaf(q[row], c[i][e], h[e]);
      }
      if (args.c_last == nullptr) continue;
      float* to = args.c_last + state + static_cast<std::int64_t>(row) * p.dv;
      if (vectors && column < p.dv) {
        *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(c[i]);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (column + e < p.dv) to[e] = c[i][e];
        }
      }
    }
  }
  // The warp's four rows first, then the warps.
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    h[e] += __shfl_xor_sync(kFullWarp, h[e], 8);
    h[e] += __shfl_xor_sync(kFullWarp, h[e], 16);
    if (thread % 32 < kColumns / 4) partial[thread / 32][thread % 32 * 4 + e] = h[e];
  }
  __syncthreads();
  if (thread < kColumns && slice * kColumns + thread < p.dv) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kThreads / 32; ++i) sum += partial[i][thread];
    args.h[static_cast<std::int64_t>(unit) * p.dv + slice * kColumns + thread] =
        from_float<T>(inverse * sum);
  }
}

}  // namespace

template <class T>
void launch_step(const Stream& stream, const Problem& p, const StepArgs<T>& args) {
  const std::int64_t slices = (p.dv + kColumns - 1) / kColumns;
  const auto aligned = [](const void* x) { return reinterpret_cast<std::uintptr_t>(x) % 16 == 0; };
  const bool vectors = p.dv % 4 == 0 && aligned(args.c0) && aligned(args.c_last);
  launch("mlstm_step", stream,
         {.grid = dim3(grid_size(p.units() * slices, 1)),
          .block = kThreads,
          .shared_bytes = 2 * static_cast<std::size_t>(p.dqk) * sizeof(float)},
         step_kernel<T>, p, args, vectors);
}
template void launch_step(const Stream&, const Problem&, const StepArgs<float>&);
template void launch_step(const Stream&, const Problem&, const StepArgs<__nv_bfloat16>&);

}  // namespace carousel::mlstm::cuda
