// The walk on Hopper. Per unit (batch × head) and DV slice one CTA walks over blocks of 64 tokens
// and keeps its slice of the state, transposed (DV rows × DQK columns, float32), in the registers
// of two warpgroups, where it is at once the accumulator of its own update and, rounded to bf16,
// the A operand of the product with the rows. Per block, with P = rows·columnsᵀ (q·kᵀ; backward
// k·qᵀ):
//   outᵀ = out_scaleᵀ ⊙ (State · rowsᵀ) + valuesᵀ · (P ⊙ D)ᵀ
//   State = decay · State + (valuesᵀ ⊙ update) · columns
// Forward:  D_ij is token j's weight in row i, out_scale = carry, update = to_state; out is divided
// by the
//           normaliser, which comes from the row sums of P ⊙ D and from q·n.
// Backward: D_ji·s/N_i, out_scale = to_state, update = carry·s/N; this makes dv and dC.
// The CTAs of a cluster are slices of one unit; rows and columns are copied once for all of them.
#pragma once

#include <array>
#include <atomic>

#include "core/cuda/checkers.h"
#include "core/cuda/launch.h"
#include "layers/mlstm/cuda/hopper_walk_feeder.cuh"
#include "layers/mlstm/cuda/hopper_walk_holder.cuh"
#include "layers/mlstm/cuda/hopper_walk_scorer.cuh"
#include "layers/mlstm/cuda/tensor_map.h"

namespace carousel::mlstm::cuda::walk {

using carousel::cuda::grid_size;
using carousel::cuda::launch;
using carousel::cuda::LaunchShape;
using carousel::cuda::Stream;

template <int dqk, int tiles, bool forward, bool whole>
__global__ void __launch_bounds__(kThreads, 1)
    walk_kernel(const __grid_constant__ WalkParams params) {
  using L = Layout<dqk, tiles, forward>;
  extern __shared__ std::uint8_t raw[];
  std::uint8_t* shared = raw + (1024 - (shared_address(raw) & 1023)) % 1024;
  Barriers& barriers = *reinterpret_cast<Barriers*>(shared + L::kBarriersAt);
  const int group = static_cast<int>(threadIdx.x) / 128;
  const int thread = static_cast<int>(threadIdx.x) % 128;
  const int segment = static_cast<int>(blockIdx.y);
  const int begin = segment * params.blocks_per_segment;
  const Walk<L, forward> walk{params,
                              shared,
                              barriers,
                              static_cast<int>(blockIdx.x) / params.slices,
                              segment,
                              static_cast<int>(blockIdx.x) % params.slices,
                              min(params.blocks_per_segment, params.p.blocks - begin)};
  if (threadIdx.x == 0) {
    for (int s = 0; s < L::kStages; ++s) {
      barrier_init(&barriers.full[s], 1);
      barrier_init(&barriers.empty[s], (kHolderWarps + kScorerWarps) * kWarpArrivals *
                                           static_cast<unsigned>(params.cluster));
    }
    for (int b = 0; b < 2; ++b) {
      barrier_init(&barriers.scores_full[b], kScorerWarps * kWarpArrivals);
      barrier_init(&barriers.scores_empty[b],
                   (kHolderWarps + (walk.records() ? 1 : 0)) * kWarpArrivals);
    }
    fence_barrier_init();
  }
  if (params.cluster > 1) {
    cluster_barrier();  // nobody copies into a CTA whose barriers are not set up
  } else {
    __syncthreads();
  }
  if (group == 3) {
    shrink_registers<24>();
    if (thread == 0) feed<L, tiles, forward, whole>(walk);
    if constexpr (forward && whole) {
      if (thread / 32 == 1 && walk.records()) record(walk, thread % 32);
    }
  } else if (group == 2) {
    shrink_registers<72>();
    score<L, dqk, forward, whole>(walk, thread);
  } else {
    grow_registers<208>();
    hold<L, dqk, tiles, forward, whole>(walk, group, thread);
  }
  if (params.cluster > 1) cluster_barrier();  // the others may still arrive at this CTA's barriers
}

constexpr int kCombineThreads = 256;

// Turns each segment's end, walked from zero, into the state that it starts from:
// start_0 = first, start_{p+1} = decay_p·start_p + end_p. One column of threads a unit.
template <bool forward>
__global__ void __launch_bounds__(kCombineThreads)
    combine_segments_kernel(Problem p, int segments, int blocks_per_segment, const GateBlock* gates,
                            const float* first, float* ends, int size) {
  extern __shared__ float decays[];
  const std::int64_t unit = blockIdx.y;
  for (int segment = static_cast<int>(threadIdx.x); segment < segments - 1;
       segment += kCombineThreads) {
    float decay = 1.0f;
    for (int i = 0; i < blocks_per_segment; ++i) {
      const int index = segment * blocks_per_segment + i;
      decay *= gates[unit * p.blocks + (forward ? index : p.blocks - 1 - index)].decay;
    }
    decays[segment] = decay;
  }
  __syncthreads();
  const int element =
      static_cast<int>(blockIdx.x) * kCombineThreads + static_cast<int>(threadIdx.x);
  if (element >= size) return;
  float start = first != nullptr ? first[unit * size + element] : 0.0f;
  for (int segment = 0; segment < segments; ++segment) {
    float& slot = ends[(unit * segments + segment) * size + element];
    // Nobody walked to the last segment's end.
    const float next = segment + 1 < segments ? fmaf(decays[segment], start, slot) : 0.0f;
    slot = start;
    start = next;
  }
}

template <bool forward>
void combine(const Stream& stream, const Problem& p, const WalkPlan& plan, const GateBlock* gates,
             const float* first, float* ends, int size) {
  const dim3 grid(grid_size(size, kCombineThreads), static_cast<unsigned>(p.units()));
  launch("mlstm_combine_segments", stream,
         {.grid = grid,
          .block = kCombineThreads,
          .shared_bytes = static_cast<std::size_t>(plan.segments) * sizeof(float)},
         combine_segments_kernel<forward>, p, plan.segments, plan.blocks_per_segment, gates, first,
         ends, size);
}

// How many clusters of this size the device runs at once; asked once a kernel and size.
template <int dqk, int tiles, bool forward>
int resident_clusters(const LaunchShape& shape) {
  static std::array<std::atomic<int>, kMaxCluster + 1> known{};
  std::atomic<int>& slot = known[shape.cluster];
  if (const int n = slot.load(); n > 0) return n - 1;
  const int n =
      carousel::cuda::max_resident_clusters(walk_kernel<dqk, tiles, forward, true>, shape);
  slot.store(n + 1);
  return n;
}

template <int dqk, int tiles, bool forward>
void launch_kernel(const Stream& stream, int segments, bool whole, WalkParams params) {
  LaunchShape shape{
      .grid = dim3(grid_size(static_cast<std::int64_t>(params.p.units()) * params.slices, 1),
                   static_cast<unsigned>(segments)),
      .block = kThreads,
      .shared_bytes = static_cast<std::size_t>(Layout<dqk, tiles, forward>::kBytes)};
  ClusterCapacity capacity{};
  for (const int size : kClusterSizes) {
    shape.cluster = static_cast<unsigned>(size);
    capacity[static_cast<std::size_t>(size)] =
        params.slices % size == 0 && size <= dqk / kPanelColumns
            ? resident_clusters<dqk, tiles, forward>(shape)
            : 0;
  }
  params.cluster = pick_cluster(params.p.units() * params.slices * segments, capacity);
  shape.cluster = static_cast<unsigned>(params.cluster);
  launch(forward ? "mlstm_walk_fwd" : "mlstm_walk_bwd", stream, shape,
         whole ? walk_kernel<dqk, tiles, forward, true> : walk_kernel<dqk, tiles, forward, false>,
         params);
}

template <bool forward>
void launch_instance(const Stream& stream, const WalkPlan& plan, int segments, bool whole,
                     const WalkParams& params) {
  if (plan.dqk == 256) return launch_kernel<256, 1, forward>(stream, segments, whole, params);
  if (plan.dqk == 128) {
    return plan.tiles == 1 ? launch_kernel<128, 1, forward>(stream, segments, whole, params)
                           : launch_kernel<128, 2, forward>(stream, segments, whole, params);
  }
  return plan.tiles == 1 ? launch_kernel<64, 1, forward>(stream, segments, whole, params)
                         : launch_kernel<64, 2, forward>(stream, segments, whole, params);
}

template <bool forward>
void launch_walk(const Stream& stream, const Problem& p, const WalkPlan& plan, const WalkArgs& args,
                 void* scratch) {
  WalkParams params{};
  const auto token = [&p](const __nv_bfloat16* data, int width) {
    return token_map(data, p.batch, p.time, p.heads, width, kBlock);
  };
  const bool whole = args.out != nullptr;
  params.columns = token(args.columns, p.dqk);
  params.values = token(args.values, p.dv);
  if (whole) {
    params.rows = token(args.rows, p.dqk);
    params.out = token(args.out, p.dv);
  }
  params.p = p;
  params.gates = args.gates;
  params.grads = args.grads;
  params.eps = args.eps;
  params.slices = plan.slices;
  params.segments = plan.segments;
  params.blocks_per_segment = plan.blocks_per_segment;
  params.c_first = args.c_first;
  params.n_first = args.n_first;
  if (plan.segments > 1) {
    const int size = p.dqk * p.dv;
    float* c = static_cast<float*>(scratch);
    float* n = c + static_cast<std::int64_t>(p.units()) * plan.segments * size;
    WalkParams ends = params;
    ends.every_segment_ends = true;
    ends.c_first = nullptr;
    ends.n_first = nullptr;
    ends.c_last = c;
    ends.n_last = n;
    launch_instance<forward>(stream, plan, plan.segments - 1, false, ends);
    combine<forward>(stream, p, plan, args.gates, args.c_first, c, size);
    combine<forward>(stream, p, plan, args.gates, args.n_first, n, p.dqk);
    params.c_first = c;
    params.n_first = n;
  }
  params.normaliser = args.normaliser;
  params.sign = args.sign;
  params.save_states = args.states != nullptr;
  if (params.save_states) {
    params.states = matrix_map(args.states, static_cast<std::int64_t>(p.units()) * p.chunks(), p.dv,
                               p.dqk, kBlock);
  }
  params.state_n = args.state_n;
  params.c_last = args.c_last;
  params.n_last = args.n_last;
  launch_instance<forward>(stream, plan, plan.segments, whole, params);
  const auto tokens = static_cast<std::size_t>(p.batch) * static_cast<std::size_t>(p.time) *
                      static_cast<std::size_t>(p.heads);
  const auto width = static_cast<std::size_t>(p.dv) * sizeof(__nv_bfloat16);
  const auto rows = static_cast<std::size_t>(p.units()) * static_cast<std::size_t>(p.chunks()) *
                    static_cast<std::size_t>(p.dqk);
  carousel::cuda::mark_written(stream, args.out, tokens * width);
  carousel::cuda::mark_written(stream, args.states, rows * width);
}

}  // namespace carousel::mlstm::cuda::walk
