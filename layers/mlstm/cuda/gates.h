// The gate kernels around the chunkwise and parallel forms: gates to factors before, gradients of
// the gates after. Pointers are device pointers; everything is asynchronous on the stream and
// deterministic.
#pragma once

#include <cstdint>

#include "core/cuda/stream.h"
#include "layers/mlstm/cuda/blocks.h"

namespace carousel::mlstm::cuda {

struct GateInputs {
  const float* i = nullptr;             ///< (B, S, NH)
  const float* f = nullptr;             ///< (B, S, NH)
  const std::uint8_t* reset = nullptr;  ///< (B, S) or null
  const float* m0 = nullptr;            ///< (B, NH) or null
  bool exponential = true;
};

struct GateOutputs {
  float2* summary = nullptr;    ///< scratch: (units, blocks)
  GateBlock* blocks = nullptr;  ///< (units, blocks)
  float* stabiliser = nullptr;  ///< (B, S, NH) or null
  float* m_last = nullptr;      ///< (B, NH) or null
  float* m_chunks = nullptr;    ///< (B, NH, NC) or null: m before each chunk
};

void launch_gates(const carousel::cuda::Stream& stream, const Problem& problem,
                  const GateInputs& in, const GateOutputs& out);

/// Δ and the weights of the backward: reads dh and h once. T is float or __nv_bfloat16.
template <class T>
struct DeltaArgs {
  const T* dh = nullptr;              ///< (B, S, NH, DV)
  const T* h = nullptr;               ///< (B, S, NH, DV)
  const float* normaliser = nullptr;  ///< (B, S, NH)
  const float* sign = nullptr;        ///< (B, S, NH)
  GradBlock* blocks = nullptr;        ///< (units, blocks), overwritten
};
template <class T>
void launch_delta(const carousel::cuda::Stream& stream, const Problem& problem,
                  const DeltaArgs<T>& args);

/// What df and di are made of, left by the kernels of dq and dk in float32, before rounding. df_t
/// counts every pair (query i >= t, key j < t) once: within a chunk as Σ_{i>=t} q·dq − Σ_{j>=t}
/// k·dk, and through the states as the queries' sums from t on, the keys' before t, and what passes
/// over the whole chunk. All of these are small where df is, so that no rounding leaks from one
/// place to another.
struct TokenSums {
  float* q_own = nullptr;    ///< (parts, units, padded time): Σ_d q·dq within the chunk
  float* k_own = nullptr;    ///< Σ_d k·dk within the chunk
  float* q_state = nullptr;  ///< Σ_d q·dq through the state before the chunk; null: none
  float* k_state = nullptr;  ///< Σ_d k·dk through the state after the chunk; null: none
  float* passing = nullptr;  ///< (units, NC): decay·(⟨C, dC⟩ + ⟨n, dn⟩); null: none
};

/// passing[u, chunk] = decay·(⟨c, dc⟩ + ⟨n, dn⟩) over each pair of states, T (units, chunks, DV,
/// DQK), with the decay over the chunk's blocks.
template <class T>
void launch_passing(const carousel::cuda::Stream& stream, const Problem& problem, int chunk_blocks,
                    const GateBlock* gates, const T* c, const float* n, const T* dc,
                    const float* dn, float* passing);

/// out[u] = ⟨c, dc⟩ + ⟨n, dn⟩ over float32 states of any common layout.
void launch_state_products(const carousel::cuda::Stream& stream, const Problem& problem,
                           const float* c, const float* n, const float* dc, const float* dn,
                           float* out);

struct GateGradArgs {
  GateInputs in;
  bool initial_state = false;  ///< whether token 0's forget gate acts on anything
  TokenSums sums;
  int parts = 1;              ///< to be added, of every sum over DQK
  int chunk_blocks = 0;       ///< blocks a chunk
  float4* summary = nullptr;  ///< scratch: (units, blocks)
  float* di = nullptr;        ///< (B, S, NH) or null, overwritten
  float* df = nullptr;
};
void launch_gate_grads(const carousel::cuda::Stream& stream, const Problem& problem,
                       const GateGradArgs& args);

}  // namespace carousel::mlstm::cuda
