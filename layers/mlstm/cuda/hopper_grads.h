// dq and dk of the chunkwise form on Hopper (sm_90a, bf16), one chunk of kChunk tokens at a time.
#pragma once

#include <cuda_bf16.h>

#include "core/cuda/stream.h"
#include "layers/mlstm/cuda/blocks.h"
#include "layers/mlstm/cuda/gates.h"

namespace carousel::mlstm::cuda {

struct HopperGradArgs {
  const __nv_bfloat16* q = nullptr;  ///< (B, S, NH, DQK)
  const __nv_bfloat16* k = nullptr;
  const __nv_bfloat16* v = nullptr;  ///< (B, S, NH, DV)
  const __nv_bfloat16* dh = nullptr;
  const GateBlock* gates = nullptr;
  const GradBlock* grads = nullptr;
  const __nv_bfloat16* c = nullptr;   ///< (units, NC, DV, DQK): before each chunk
  const float* n = nullptr;           ///< (units, NC, DQK)
  const __nv_bfloat16* dc = nullptr;  ///< (units, NC, DV, DQK): after each chunk
  const float* dn = nullptr;
  __nv_bfloat16* dq = nullptr;  ///< (B, S, NH, DQK), overwritten, or null
  __nv_bfloat16* dk = nullptr;
  TokenSums sums;  ///< in one part, overwritten
};

/// Asynchronous; deterministic. The sizes must be ones that hopper_takes() accepts.
void launch_hopper_grads(const carousel::cuda::Stream& stream, const Problem& problem,
                         const HopperGradArgs& args);

}  // namespace carousel::mlstm::cuda
