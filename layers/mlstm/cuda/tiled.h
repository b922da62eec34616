// The chunkwise and the parallel form in 64 × 64 tiles, for every device from sm_80 on, bf16 and
// float32 and any head sizes. States, outputs and gradients are made by separate kernels, each in a
// forward and a mirrored backward variant. The parallel form is the one whose chunk is the whole
// sequence.
#pragma once

#include "core/cuda/stream.h"
#include "layers/mlstm/cuda/blocks.h"

namespace carousel::mlstm::cuda {

/// States at the borders of chunks: (units, NC, DV, DQK) T and (units, NC, DQK) float32; before
/// each chunk in the forward, after it in the backward. Natural states are (units, DQK, DV)
/// float32.
template <class T>
struct TiledStateArgs {
  const T* columns = nullptr;  ///< (B, S, NH, DQK): k; backward q
  const T* values = nullptr;   ///< (B, S, NH, DV): v; backward dh
  const GateBlock* gates = nullptr;
  const GradBlock* grads = nullptr;  ///< backward only
  T* states = nullptr;
  T* rests = nullptr;  ///< what rounding to T left of the states, in T; null if nobody reads it
  float* state_n = nullptr;
  const float* c_first = nullptr;  ///< natural state to start from, null for zero
  const float* n_first = nullptr;
  float* c_last = nullptr;  ///< natural state at the end, or null, each for itself
  float* n_last = nullptr;
};

/// out = h from q, k, v, or, mirrored in time, dv from k, q, dh.
template <class T>
struct TiledOutArgs {
  const T* rows = nullptr;     ///< (B, S, NH, DQK): q; backward k
  const T* columns = nullptr;  ///< k; backward q
  const T* values = nullptr;   ///< (B, S, NH, DV): v; backward dh
  const GateBlock* gates = nullptr;
  const GradBlock* grads = nullptr;  ///< backward only
  const T* states = nullptr;         ///< null: all zero
  const T* rests = nullptr;          ///< to be added to the states; null: all zero
  const float* state_n = nullptr;
  T* out = nullptr;             ///< (B, S, NH, DV)
  float* normaliser = nullptr;  ///< (B, S, NH) or null; forward only
  float* sign = nullptr;
  float eps = 0.0f;
};

/// dq (rows are queries: dh against v, c, k) or dk (rows are keys: v against dh, dc, q).
template <class T>
struct TiledGradArgs {
  const T* rows = nullptr;     ///< (B, S, NH, DV): dh; for dk v
  const T* columns = nullptr;  ///< (B, S, NH, DV): v; for dk dh
  const T* factors = nullptr;  ///< (B, S, NH, DQK): k; for dk q
  const T* own = nullptr;      ///< (B, S, NH, DQK): q; for dk k
  const GateBlock* gates = nullptr;
  const GradBlock* grads = nullptr;
  const T* states = nullptr;  ///< c before each chunk; for dk dc after it; null: all zero
  const float* state_n = nullptr;
  T* out = nullptr;             ///< (B, S, NH, DQK) or null
  float* own_sums = nullptr;    ///< (tiled_grad_parts, units, padded time): Σ_d own·out before
                                ///< rounding, of what comes from the chunk's tokens
  float* state_sums = nullptr;  ///< and from the state
};

/// In how many parts the sums over DQK come.
int tiled_grad_parts(const Problem& problem);

/// `chunk_blocks`: blocks of 64 tokens per chunk. All asynchronous and deterministic, and all
/// overwrite. T is float or __nv_bfloat16.
template <class T>
void launch_tiled_states(const carousel::cuda::Stream& stream, const Problem& problem, bool forward,
                         int chunk_blocks, const TiledStateArgs<T>& args);
template <class T>
void launch_tiled_out(const carousel::cuda::Stream& stream, const Problem& problem, bool forward,
                      int chunk_blocks, const TiledOutArgs<T>& args);
template <class T>
void launch_tiled_grad(const carousel::cuda::Stream& stream, const Problem& problem, bool queries,
                       int chunk_blocks, const TiledGradArgs<T>& args);

}  // namespace carousel::mlstm::cuda
