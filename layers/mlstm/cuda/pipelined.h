// The chunkwise form in 128 × 128 tiles on every device from sm_80 on: bf16, whole 16-byte vectors.
// Asynchronous copies fill shared memory steps ahead of the tensor cores. Where Hopper's kernels do
// not run, or at head sizes that they do not take, these do most of the work of the tiled kernels,
// whose arguments and results theirs are.
#pragma once

#include <initializer_list>

#include "layers/mlstm/cuda/tiled.h"

namespace carousel::mlstm::cuda {

/// Whether the device, the sizes and all addresses are ones that these kernels take; only those of
/// `optional` may be null.
bool pipeline_takes(const carousel::cuda::Stream& stream, const Problem& problem, int chunk_blocks,
                    std::initializer_list<const void*> needed, const void* optional = nullptr);

/// As launch_tiled_states(), launch_tiled_out() with states and rests, and launch_tiled_grad() with
/// states, at chunks of 128 tokens.
void launch_pipelined_states(const carousel::cuda::Stream& stream, const Problem& problem,
                             bool forward, const TiledStateArgs<__nv_bfloat16>& args);
void launch_pipelined_out(const carousel::cuda::Stream& stream, const Problem& problem,
                          bool forward, const TiledOutArgs<__nv_bfloat16>& args);
void launch_pipelined_grad(const carousel::cuda::Stream& stream, const Problem& problem,
                           bool queries, const TiledGradArgs<__nv_bfloat16>& args);

}  // namespace carousel::mlstm::cuda
