// Precision: see mma.h.
#include "core/cuda/launch.h"
#include "layers/slstm/cuda/mma.cuh"
#include "layers/slstm/cuda/mma.h"
#include "layers/slstm/cuda/saved_ring.cuh"

namespace carousel::slstm {
namespace {

// One cluster: one head, up to eight batch rows, all time steps backwards. In each step one thread
// for each of the block's dimensions and batch rows differentiates its element, and the gates'
// gradients go to all blocks. Then four warps share sixteen dimensions: warp g of the four
// multiplies gate g's gradients with its part of Rᵀ.
template <int kHeld, int kThreads>
__global__ void __launch_bounds__(kThreads)
    slstm_mma_bwd_kernel(BackwardPointers<bf16> p, MmaPlan plan) {
  extern __shared__ __align__(16) unsigned char shared[];
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32;
  const int gate = warp % kNumGates;
  const MmaLane at;
  const int tiles = plan.backward_tiles();
  const int pitch = mma_backward_pitch(plan.padded);
  const int sums_pitch = mma_sums_pitch(plan.slice);
  auto* const all_spilled = reinterpret_cast<MmaWeights*>(shared + 16);
  MmaWeights* const spilled = all_spilled + warp * (tiles - kHeld) * 32 + at.lane;
  float* const sums =  // (gate, row, dimension)
      reinterpret_cast<float*>(all_spilled + plan.warps() * (tiles - kHeld) * 32);
  bf16* const buffers = reinterpret_cast<bf16*>(sums + kNumGates * plan.rows * sums_pitch);
  float* const ring_memory = reinterpret_cast<float*>(buffers + 2 * plan.rows * pitch);
  const int rank = static_cast<int>(blockIdx.x) % plan.cluster;
  const std::int64_t unit = blockIdx.x / static_cast<unsigned>(plan.cluster);
  const std::int64_t head = unit % p.n.heads;
  const std::int64_t first_sequence = unit / p.n.heads * plan.rows;
  const int size = static_cast<int>(p.n.size);
  const int first_dim = rank * plan.slice;

  // As a multiplier: sixteen dimensions of the slice, one gate.
  const int multiplied = warp / kNumGates * kMmaUnit;
  const auto load = [&](int tile) {
    return mma_weights(at, [&](int row, int input) {
      const int dim = first_dim + multiplied + row;
      const int k = tile * kMmaDepth + input;
      return dim < size && k < size ? p.r[((head * kNumGates + gate) * size + k) * size + dim]
                                    : 0.0f;
    });
  };
  MmaWeights held[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) held[i] = load(i);
  for (int i = kHeld; i < tiles; ++i) spilled[(i - kHeld) * 32] = load(i);

  // As a differentiator: one dimension of the slice, one batch row.
  const int row = thread / plan.slice;
  const int local = thread % plan.slice;
  const int dim = first_dim + local;
  const std::int64_t sequence = first_sequence + row;
  const bool active = row < plan.rows && dim < size && sequence < p.n.batch;
  const bool writes = warp * 32 < plan.elements();  // the whole warp or its first half
  const SavedRing<bf16> ring(ring_memory, active ? thread : 0, plan.elements());
  float dh = 0.0f;  // from the step after
  float dc = 0.0f;
  float dn = 0.0f;
  Element now(p.n, sequence, head, dim, p.n.time - 1);
  ElementState<float> after{};
  bf16 dh_out{};
  std::uint8_t start = 0;
  if (active) {
    if (p.dh_last != nullptr) {
      dh = p.dh_last[now.state];
      dc = p.dc_last[now.state];
      dn = p.dn_last[now.state];
    }
    after = p.state_after(now);
    dh_out = p.dh[now.token];
    start = p.start(now);
  }
#pragma unroll
  for (int steps = 0; steps < kStepsAhead - 1; ++steps) {
    if (active && now.t >= steps) ring.fetch(p, now.later(p.n, -steps));
    commit_copies();
  }
  for (int i = thread; i < 2 * plan.rows * pitch; i += plan.threads()) {
    buffers[i] = __float2bfloat16_rn(0.0f);
  }
  const Exchange exchange(reinterpret_cast<std::uint64_t*>(shared), plan.cluster, rank,
                          plan.elements(), kNumGates);

  const Exchange::Piece piece = Exchange::piece<kNumGates>();
  const int sent = piece.element / plan.slice * pitch + piece.set * plan.padded + first_dim +
                   piece.element % plan.slice;

  const int steps = static_cast<int>(p.n.time);
  for (int turn = 0; turn < steps; ++turn) {
    bf16* const dgates = buffers + turn % 2 * plan.rows * pitch;
    const bool starts = start != 0;
    if (writes) {
      if (active && now.t >= kStepsAhead - 1) ring.fetch(p, now.later(p.n, 1 - kStepsAhead));
      commit_copies();
      wait_copies<kStepsAhead - 1>();
      float gradients[kNumGates] = {};
      if (active) {
        SavedStep<bf16> saved = ring.get(now.t);
        saved.dh = dh_out;
        saved.start = start;
        const ElementGradients<float> d = saved.differentiate(after, dh, dc, dn);
        gradients[0] = d.i;
        gradients[1] = d.f;
        gradients[2] = d.z;
        gradients[3] = d.o;
#pragma unroll
        for (int g = 0; g < kNumGates; ++g) {
          dgates[row * pitch + g * plan.padded + dim] = __float2bfloat16_rn(gradients[g]);
        }
        after = saved.before;
      }
      exchange.send<kNumGates>(turn, dgates + sent);
      if (active) {
#pragma unroll
        for (int g = 0; g < kNumGates; ++g) p.write_dx(now, g, gradients[g]);
        if (now.t > 0) {
          // Read a step ahead of their use, and called into the L2 cache long before.
          now.move(p.n, -1);
          dh_out = p.dh[now.token];
          start = p.start(now);
          if (now.t >= kPrefetch) prefetch(p.dh + now.later(p.n, -kPrefetch).token);
        }
      }
    }
    exchange.wait(turn);

    const bf16* const inputs =
        mma_inputs_of(dgates + gate * plan.padded, pitch, plan.rows, at.lane);
    float sum[4][4] = {};  // four chains of products: their latencies overlap
#pragma unroll
    for (int i = 0; i < kHeld; i += 2) {
      std::uint32_t b[4];
      mma_inputs(inputs + i * kMmaDepth, b);
      mma(sum[i % 4], held[i], b[0], b[1]);
      mma(sum[i % 4 + 1], held[i + 1], b[2], b[3]);
    }
#pragma unroll 2
    for (int i = kHeld; i < tiles; i += 4) {
      std::uint32_t b[4];
      const MmaWeights* const w = spilled + (i - kHeld) * 32;
      mma_inputs(inputs + i * kMmaDepth, b);
      mma(sum[0], w[0], b[0], b[1]);
      mma(sum[1], w[32], b[2], b[3]);
      mma_inputs(inputs + (i + 2) * kMmaDepth, b);
      mma(sum[2], w[64], b[0], b[1]);
      mma(sum[3], w[96], b[2], b[3]);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int to = at.pair + e % 2;
      if (to >= plan.rows) continue;
      sums[(gate * plan.rows + to) * sums_pitch + multiplied + e / 2 * 8 + at.group] =
          (sum[0][e] + sum[1][e]) + (sum[2][e] + sum[3][e]);
    }
    __syncthreads();
    if (active) {
      const int gate_stride = plan.rows * sums_pitch;
      const float* const own = sums + row * sums_pitch + local;
      dh = starts ? 0.0f
                  : (own[0] + own[gate_stride]) + (own[2 * gate_stride] + own[3 * gate_stride]);
    }
  }
  if (!active) return;
  if (p.dh0 != nullptr) p.dh0[now.state] = dh;
  if (p.dc0 != nullptr) p.dc0[now.state] = dc;
  if (p.dn0 != nullptr) p.dn0[now.state] = dn;
}

}  // namespace

bool backward_mma(const cuda::Stream& stream, const CellBackwardArgs& args) {
  const BackwardPointers<bf16> p(args);
  const auto plan = mma_plan(p.n.batch, p.n.heads, p.n.size, stream.info().multiprocessors,
                             stream.info().clusters);
  if (!plan) return false;
  const std::int64_t units = p.n.heads * ((p.n.batch + plan->rows - 1) / plan->rows);
  const cuda::LaunchShape shape{.grid = cuda::grid_size(units * plan->cluster, 1),
                                .block = static_cast<unsigned>(plan->threads()),
                                .shared_bytes = mma_backward_shared_bytes(*plan),
                                .cluster = static_cast<unsigned>(plan->cluster)};
  const auto run = [&](auto kernel) {
    return cuda::launch_if_cluster_fits("slstm_bwd", stream, shape, kernel, p, *plan);
  };
  switch (plan->backward_held) {
    case 4:
      return run(slstm_mma_bwd_kernel<4, 512>);
    case 8:
      return run(slstm_mma_bwd_kernel<8, 256>);
    case 16:
      return run(slstm_mma_bwd_kernel<16, 256>);
    default:
      return run(slstm_mma_bwd_kernel<24, 384>);
  }
}

}  // namespace carousel::slstm
