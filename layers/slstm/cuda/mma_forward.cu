// Precision: see mma.h.
#include "core/cuda/launch.h"
#include "layers/slstm/cuda/cell.cuh"
#include "layers/slstm/cuda/mma.cuh"
#include "layers/slstm/cuda/mma.h"

namespace carousel::slstm {
namespace {

// One cluster: one head, up to eight batch rows, all time steps. Two warps share eight dimensions:
// each multiplies the four gates' rows of R with half of h for all batch rows. Then one thread for
// each of the block's dimensions and batch rows advances the state, and h goes to all blocks.
template <int kHeld, int kThreads>
__global__ void __launch_bounds__(kThreads)
    slstm_mma_fwd_kernel(ForwardPointers<bf16> p, MmaPlan plan) {
  extern __shared__ __align__(16) unsigned char shared[];
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32;
  const int half = warp % 2;
  const MmaLane at;
  const int tiles = plan.forward_tiles();
  const int pitch = mma_forward_pitch(plan.padded);
  const int sums_pitch = mma_sums_pitch(plan.slice);
  auto* const all_spilled = reinterpret_cast<MmaWeights*>(shared + 16);
  MmaWeights* const spilled = all_spilled + warp * (tiles - kHeld) * 64 + at.lane;
  float* const sums =  // (half, gate, row, dimension)
      reinterpret_cast<float*>(all_spilled + plan.warps() * (tiles - kHeld) * 64);
  bf16* const h_buffers = reinterpret_cast<bf16*>(sums + 8 * plan.rows * sums_pitch);
  const int rank = static_cast<int>(blockIdx.x) % plan.cluster;
  const std::int64_t unit = blockIdx.x / static_cast<unsigned>(plan.cluster);
  const std::int64_t head = unit % p.n.heads;
  const std::int64_t first_sequence = unit / p.n.heads * plan.rows;
  const int size = static_cast<int>(p.n.size);
  const int first_dim = rank * plan.slice;

  // As a multiplier: the rows of a tile are one gate's eight dimensions, then the next gate's.
  const int multiplied = warp / 2 * 8;
  const auto load = [&](int tile, int gates) {
    return mma_weights(at, [&](int row, int input) {
      const int dim = first_dim + multiplied + row % 8;
      const int k = (half * tiles + tile) * kMmaDepth + input;
      const std::int64_t out = (head * kNumGates + gates * 2 + row / 8) * size + dim;
      return dim < size && k < size ? p.r[out * size + k] : 0.0f;
    });
  };
  MmaWeights held[kHeld][2];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    held[i][0] = load(i, 0);
    held[i][1] = load(i, 1);
  }
  for (int i = kHeld; i < tiles; ++i) {
    spilled[(i - kHeld) * 64] = load(i, 0);
    spilled[(i - kHeld) * 64 + 32] = load(i, 1);
  }

  // As a cell: one dimension of the slice, one batch row.
  const int row = thread / plan.slice;
  const int local = thread % plan.slice;
  const int dim = first_dim + local;
  const std::int64_t sequence = first_sequence + row;
  const bool active = row < plan.rows && dim < size && sequence < p.n.batch;
  const bool writes = warp * 32 < plan.elements();  // the whole warp or its first half
  Cell<bf16> cell(p, Element(p.n, sequence, head, dim, 0), active);
  for (int i = thread; i < 2 * plan.rows * pitch; i += plan.threads()) {
    const std::int64_t from = first_sequence + i / pitch;
    const bool given =
        p.h0 != nullptr && i < plan.rows * pitch && from < p.n.batch && i % pitch < size;
    h_buffers[i] =
        __float2bfloat16_rn(given ? p.h0[(from * p.n.heads + head) * size + i % pitch] : 0.0f);
  }
  const Exchange exchange(reinterpret_cast<std::uint64_t*>(shared), plan.cluster, rank,
                          plan.elements(), 1);

  const int piece = Exchange::piece<1>().element;
  const int sent = piece / plan.slice * pitch + first_dim + piece % plan.slice;

  const int steps = static_cast<int>(p.n.time);
  for (int t = 0; t < steps; ++t) {
    bf16* const h_now = h_buffers + t % 2 * plan.rows * pitch;
    bf16* const h_next = h_buffers + (1 - t % 2) * plan.rows * pitch;
    const bf16* const inputs =
        mma_inputs_of(h_now + half * tiles * kMmaDepth, pitch, plan.rows, at.lane);
    float sum[2][2][4] = {};  // even and odd tiles: the latencies of two chains overlap
#pragma unroll
    for (int i = 0; i < kHeld; i += 2) {
      std::uint32_t b[4];
      mma_inputs(inputs + i * kMmaDepth, b);
#pragma unroll
      for (int gates = 0; gates < 2; ++gates) {
        mma(sum[0][gates], held[i][gates], b[0], b[1]);
        mma(sum[1][gates], held[i + 1][gates], b[2], b[3]);
      }
    }
#pragma unroll 2
    for (int i = kHeld; i < tiles; i += 2) {
      std::uint32_t b[4];
      mma_inputs(inputs + i * kMmaDepth, b);
      const MmaWeights* const w = spilled + (i - kHeld) * 64;
#pragma unroll
      for (int gates = 0; gates < 2; ++gates) {
        mma(sum[0][gates], w[gates * 32], b[0], b[1]);
        mma(sum[1][gates], w[64 + gates * 32], b[2], b[3]);
      }
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (at.pair + e >= plan.rows) continue;
#pragma unroll
      for (int g = 0; g < kNumGates; ++g) {
        const int i = g % 2 * 2 + e;
        sums[((half * kNumGates + g) * plan.rows + at.pair + e) * sums_pitch + multiplied +
             at.group] = sum[0][g / 2][i] + sum[1][g / 2][i];
      }
    }
    __syncthreads();
    if (writes) {
      if (active) {
        const int gate_stride = plan.rows * sums_pitch;
        const float* const own = sums + row * sums_pitch + local;
        float products[kNumGates];
#pragma unroll
        for (int g = 0; g < kNumGates; ++g) {
          products[g] = own[g * gate_stride] + own[(kNumGates + g) * gate_stride];
        }
        h_next[row * pitch + dim] = __float2bfloat16_rn(cell.advance(p, products, 1));
      }
      if (t + 1 < steps) {
        exchange.send<1>(t, h_next + sent);
      }
      if (active) cell.save(p);
    }
    if (t + 1 < steps) exchange.wait(t);
  }
}

}  // namespace

bool forward_mma(const cuda::Stream& stream, const CellForwardArgs& args) {
  const ForwardPointers<bf16> p(args);
  const auto plan = mma_plan(p.n.batch, p.n.heads, p.n.size, stream.info().multiprocessors,
                             stream.info().clusters);
  if (!plan) return false;
  if (plan->splits_forward()) return forward_split(stream, args, *plan);
  const std::int64_t units = p.n.heads * ((p.n.batch + plan->rows - 1) / plan->rows);
  const cuda::LaunchShape shape{.grid = cuda::grid_size(units * plan->cluster, 1),
                                .block = static_cast<unsigned>(plan->threads()),
                                .shared_bytes = mma_forward_shared_bytes(*plan),
                                .cluster = static_cast<unsigned>(plan->cluster)};
  const auto run = [&](auto kernel) {
    return cuda::launch_if_cluster_fits("slstm_fwd", stream, shape, kernel, p, *plan);
  };
  switch (plan->forward_held) {
    case 2:
      return run(slstm_mma_fwd_kernel<2, 512>);
    case 4:
      return run(slstm_mma_fwd_kernel<4, 256>);
    default:
      return run(slstm_mma_fwd_kernel<8, 256>);
  }
}

}  // namespace carousel::slstm
