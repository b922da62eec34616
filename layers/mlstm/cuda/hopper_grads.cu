// One CTA takes chunk after chunk (128 tokens), and of each 128 columns of DQK at a time. dS, the
// gradient of the scores, is formed once and serves both dQ and dK:
//   over DV slices: dP += dH_s·V_sᵀ (first pass), dQ += dH_s·C_sᵀ, dK += V_s·dC_sᵀ, Y += ⟨C_s,
//   dC_s⟩ dS = (dP·s/N + s·Δ) ⊙ D dQ = carry ⊙ (s/N ⊙ dQ + s·Δ nᵀ) + dS·K,  dK = to_state ⊙ (dK +
//   dnᵀ) + dSᵀ·Q
// C is the state before the chunk, dC the gradient of the state after it. For the forget gates'
// gradients it leaves Σ q·dq and Σ k·dk, apart for what passes through the states and for what
// stays in the chunk, and Y. The same rounded dS enters dQ and dK, so that its rounding cancels
// from Σ (q·dq − k·dk). Two warpgroups take 64 rows each; of a third, one warp feeds the copy
// engine through a ring of stages and three sum up Y. Results leave in place, over Q and K in their
// stage.
#include <algorithm>

#include "core/cuda/checkers.h"
#include "core/cuda/launch.h"
#include "layers/mlstm/cuda/hopper_grads_worker.cuh"
#include "layers/mlstm/cuda/tensor_map.h"

namespace carousel::mlstm::cuda {
namespace grads {
namespace {

using carousel::cuda::launch;
using carousel::cuda::Stream;

template <int dqk>
__global__ void __launch_bounds__(kThreads, 1)
    grads_kernel(const __grid_constant__ GradParams params) {
  using L = Layout<dqk>;
  extern __shared__ __align__(1024) std::uint8_t shared[];
  Barriers& barriers = *reinterpret_cast<Barriers*>(shared + L::kBarriersAt);
  const int group = static_cast<int>(threadIdx.x) / 128;
  const int thread = static_cast<int>(threadIdx.x) % 128;
  if (threadIdx.x == 0) {
    if (shared_address(shared) % 1024 != 0) __trap();  // the swizzle counts from there
    for (int s = 0; s < L::kStages; ++s) {
      barrier_init(&barriers.full[s], 1);
      barrier_init(&barriers.empty[s], (kWorkerWarps + kSummerWarps) * kWarpArrivals);
    }
    fence_barrier_init();
  }
  __syncthreads();
  if (group == 2) {
    shrink_registers<40>();
    if (thread == 0) {
      Feeder<dqk>{{params, shared, barriers}}.run();
    } else if (thread >= 32) {
      Summer<dqk>{{params, shared, barriers}, thread - 32}.run();
    }
  } else {
    grow_registers<232>();
    Worker<dqk>{{params, shared, barriers}, group, thread}.run();
  }
}

template <int dqk>
void launch_kernel(const Stream& stream, const GradParams& params) {
  const int tiles = params.p.units() * params.p.chunks();
  launch("mlstm_grads", stream,
         {.grid = dim3(static_cast<unsigned>(std::min(tiles, stream.info().multiprocessors))),
          .block = kThreads,
          .shared_bytes = static_cast<std::size_t>(Layout<dqk>::kBytes)},
         grads_kernel<dqk>, params);
}

}  // namespace
}  // namespace grads

void launch_hopper_grads(const carousel::cuda::Stream& stream, const Problem& p,
                         const HopperGradArgs& args) {
  grads::GradParams params{};
  const auto tokens = [&p](const __nv_bfloat16* data, int width, int rows) {
    return token_map(data, p.batch, p.time, p.heads, width, rows);
  };
  const std::int64_t states = static_cast<std::int64_t>(p.units()) * p.chunks();
  params.q = tokens(args.q, p.dqk, kChunk);
  params.k = tokens(args.k, p.dqk, kChunk);
  params.v = tokens(args.v, p.dv, kChunk);
  params.dh = tokens(args.dh, p.dv, kChunk);
  params.c = matrix_map(args.c, states, p.dv, p.dqk, grads::kSlice);
  params.dc = matrix_map(args.dc, states, p.dv, p.dqk, grads::kSlice);
  params.store_dq = args.dq != nullptr;
  params.store_dk = args.dk != nullptr;
  if (params.store_dq) params.dq = tokens(args.dq, p.dqk, kBlock);
  if (params.store_dk) params.dk = tokens(args.dk, p.dqk, kBlock);
  params.p = p;
  params.gates = args.gates;
  params.grads = args.grads;
  params.n = args.n;
  params.dn = args.dn;
  params.sums = args.sums;
  if (p.dqk <= 64) {
    grads::launch_kernel<64>(stream, params);
  } else if (p.dqk <= 128) {
    grads::launch_kernel<128>(stream, params);
  } else {
    grads::launch_kernel<256>(stream, params);
  }
  const auto bytes = static_cast<std::size_t>(p.batch) * static_cast<std::size_t>(p.time) *
                     static_cast<std::size_t>(p.heads) * static_cast<std::size_t>(p.dqk) *
                     sizeof(__nv_bfloat16);
  carousel::cuda::mark_written(stream, args.dq, bytes);
  carousel::cuda::mark_written(stream, args.dk, bytes);
}

}  // namespace carousel::mlstm::cuda
