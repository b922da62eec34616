// The chunkwise form's walk on Hopper (sm_90a, bf16): one pass over time that keeps the state on
// chip. Forward it makes h from q, k, v; backward, the same algebra mirrored in time makes dv from
// k, q, dh.
#pragma once

#include <cuda_bf16.h>

#include "core/cuda/stream.h"
#include "layers/mlstm/cuda/blocks.h"
#include "layers/mlstm/cuda/plan.h"

namespace carousel::mlstm::cuda {

/// States are (units, NC, DV, DQK) bf16 and (units, NC, DQK) float32, one a chunk of kChunk tokens:
/// before it in the forward, after it in the backward. Natural states are (units, DQK, DV),
/// float32.
struct WalkArgs {
  const __nv_bfloat16* rows = nullptr;     ///< (B, S, NH, DQK): q; backward k
  const __nv_bfloat16* columns = nullptr;  ///< (B, S, NH, DQK): k; backward q
  const __nv_bfloat16* values = nullptr;   ///< (B, S, NH, DV): v; backward dh
  __nv_bfloat16* out = nullptr;            ///< (B, S, NH, DV): h; backward dv; null: states only
  const GateBlock* gates = nullptr;
  const GradBlock* grads = nullptr;  ///< backward only
  float* normaliser = nullptr;       ///< (B, S, NH) or null; forward only
  float* sign = nullptr;
  float eps = 0.0f;
  __nv_bfloat16* states = nullptr;  ///< saved states or null
  float* state_n = nullptr;
  const float* c_first = nullptr;  ///< natural state that the walk starts from, null for zero
  const float* n_first = nullptr;
  float* c_last = nullptr;  ///< natural state that it ends with, or null
  float* n_last = nullptr;
};

/// Bytes of scratch that a plan with several segments needs.
std::size_t walk_scratch_bytes(const Problem& problem, const WalkPlan& plan);

/// Asynchronous; deterministic. Overwrites out, normaliser, sign, states, state_n, c_last, n_last.
void launch_walk_fwd(const carousel::cuda::Stream& stream, const Problem& problem,
                     const WalkPlan& plan, const WalkArgs& args, void* scratch);
void launch_walk_bwd(const carousel::cuda::Stream& stream, const Problem& problem,
                     const WalkPlan& plan, const WalkArgs& args, void* scratch);

}  // namespace carousel::mlstm::cuda
