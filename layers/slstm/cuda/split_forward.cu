// The bf16 forward of heads of 257 to 768 dimensions; precision: see mma.h. Of a block's warps
// eight only multiply, so that most of their registers hold weights, and four only advance the
// state, so that reading inputs and writing results happens while the others multiply.
#include "core/cuda/launch.h"
#include "core/cuda/registers.cuh"
#include "layers/slstm/cuda/cell.cuh"
#include "layers/slstm/cuda/mma.cuh"
#include "layers/slstm/cuda/mma.h"

namespace carousel::slstm {
namespace {

constexpr int kCellElements = 2;  // of a thread: batch rows two apart
constexpr int kSumsReady = 1;     // the barrier's number

__device__ __forceinline__ void signal_sums() {
  asm volatile("bar.arrive %0, %1;" ::"n"(kSumsReady), "n"(kSplitThreads) : "memory");
}
__device__ __forceinline__ void wait_for_sums() {
  asm volatile("bar.sync %0, %1;" ::"n"(kSumsReady), "n"(kSplitThreads) : "memory");
}

// Where a block stands and what it shares.
struct Block {
  const ForwardPointers<bf16>& p;
  const MmaPlan& plan;
  const Exchange& exchange;
  MmaWeights* spilled;
  float* sums;  // (half, gate, row, dimension)
  bf16* h;      // two buffers
  std::int64_t head, first_sequence;
  int first_dim;

  __device__ int steps() const { return static_cast<int>(p.n.time); }
  __device__ int pitch() const { return mma_forward_pitch(plan.padded); }
  __device__ bf16* h_at(int t) const { return h + t % 2 * plan.rows * pitch(); }
};

// One gate's rows of R, kGroups · 16 dimensions, times half of h; kTiles tiles of inputs, of which
// kHeld lie in registers.
template <int kGroups, int kTiles, int kHeld>
__device__ void multiply(const Block& block, int warp) {
  const MmaLane at;
  const MmaPlan& plan = block.plan;
  const int gate = warp % kNumGates;
  const int half = warp / kNumGates;
  const int size = static_cast<int>(block.p.n.size);
  const auto load = [&](int tile, int group) {
    return mma_weights(at, [&](int row, int input) {
      const int dim = block.first_dim + kMmaUnit * group + row;
      const int k = (half * kTiles + tile) * kMmaDepth + input;
      const std::int64_t out = (block.head * kNumGates + gate) * size + dim;
      return dim < size && k < size ? block.p.r[out * size + k] : 0.0f;
    });
  };
  MmaWeights* const spilled = block.spilled + warp * (kTiles - kHeld) * kGroups * 32 + at.lane;
  MmaWeights held[kHeld][kGroups];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) held[i][g] = load(i, g);
  }
  for (int i = kHeld; i < kTiles; ++i) {
    for (int g = 0; g < kGroups; ++g) spilled[((i - kHeld) * kGroups + g) * 32] = load(i, g);
  }
  const int sums_pitch = mma_sums_pitch(plan.slice);
  float* const sums = block.sums + (half * kNumGates + gate) * plan.rows * sums_pitch + at.group;

  for (int t = 0; t < block.steps(); ++t) {
    if (t > 0) block.exchange.wait(t - 1);
    const bf16* const inputs =
        mma_inputs_of(block.h_at(t) + half * kTiles * kMmaDepth, block.pitch(), plan.rows, at.lane);
    float sum[kGroups][4] = {};
    // Pairs of tiles from registers and from shared memory in turn: both have something to do.
#pragma unroll
    for (int i = 0; i < kHeld; i += 2) {
      std::uint32_t b[4];
      mma_inputs(inputs + i * kMmaDepth, b);
#pragma unroll
      for (int g = 0; g < kGroups; ++g) mma(sum[g], held[i][g], b[0], b[1]);
#pragma unroll
      for (int g = 0; g < kGroups; ++g) mma(sum[g], held[i + 1][g], b[2], b[3]);
      const int s = kHeld + i;
      if (s >= kTiles) continue;
      const MmaWeights* const w = spilled + i * kGroups * 32;
      mma_inputs(inputs + s * kMmaDepth, b);
#pragma unroll
      for (int g = 0; g < kGroups; ++g) mma(sum[g], w[g * 32], b[0], b[1]);
#pragma unroll
      for (int g = 0; g < kGroups; ++g) mma(sum[g], w[(kGroups + g) * 32], b[2], b[3]);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = at.pair + e % 2;
      if (row >= plan.rows) continue;
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        sums[row * sums_pitch + kMmaUnit * g + e / 2 * 8] = sum[g][e];
      }
    }
    signal_sums();
  }
}

// One dimension of rows `first` and first + 2, advanced at once: their latencies overlap. What has
// no row runs along unseen.
class CellPair {
 public:
  __device__ CellPair(const Block& block, int first, int dim)
      : p_(block.p), at_(block.p.n, block.first_sequence + first, block.head, dim, -1) {
#pragma unroll
    for (int e = 0; e < kCellElements; ++e) {
      const int row = first + 2 * e;
      active_[e] = first < 2 && row < block.plan.rows && dim < p_.n.size &&
                   block.first_sequence + row < p_.n.batch;
      if (active_[e]) state_[e] = p_.initial_state(element(e));
    }
#pragma unroll
    for (int g = 0; g < kNumGates; ++g) bias_[g] = active_[0] ? p_.bias(at_, g) : 0.0f;
    fetch();
  }

  __device__ bool active(int e) const { return active_[e]; }
  /// Goes one step on; products is R·h of the step before.
  __device__ float advance(int e, const float (&products)[kNumGates]) {
    const bool starts = start_[e] != 0;
    float pre[kNumGates];
#pragma unroll
    for (int g = 0; g < kNumGates; ++g) {
      pre[g] = cuda::to_float(x_[e][g]) + bias_[g] + (starts ? 0.0f : products[g]);
    }
    if (starts) state_[e] = {0.0f, 0.0f, -INFINITY};
    gate_[e] = step<DeviceMath>(pre[0], pre[1], pre[2], pre[3], state_[e]);
    h_[e] = __fdividef(gate_[e].o * state_[e].c, state_[e].n);
    return h_[e];
  }
  /// Writes the results of the step made last and reads the next one's inputs.
  __device__ void save_and_fetch() {
    at_.move(p_.n, 1);
#pragma unroll
    for (int e = 0; e < kCellElements; ++e) {
      if (active_[e]) p_.save(element(e), h_[e], gate_[e], state_[e]);
    }
    fetch();
  }

 private:
  __device__ Element element(int e) const {
    Element of = at_;
    of.sequence += 2 * e;
    of.token += 2 * e * p_.n.time * p_.n.token_stride();
    of.step += 2 * e * p_.n.token_stride();
    of.state += 2 * e * p_.n.token_stride();
    return of;
  }
  // As stored: a conversion would wait for the value.
  __device__ void fetch() {
    if (at_.t + 1 >= p_.n.time) return;
#pragma unroll
    for (int e = 0; e < kCellElements; ++e) {
      if (!active_[e]) continue;
      const Element next = element(e).later(p_.n, 1);
#pragma unroll
      for (int g = 0; g < kNumGates; ++g) x_[e][g] = p_.x[g][next.token];
      start_[e] = p_.start(next);
    }
  }

  const ForwardPointers<bf16>& p_;
  Element at_;  // of the first row, at the step made last
  bool active_[kCellElements];
  ElementState<float> state_[kCellElements] = {{0.0f, 0.0f, -INFINITY}, {0.0f, 0.0f, -INFINITY}};
  ElementGates<float> gate_[kCellElements] = {};
  float h_[kCellElements] = {};
  float bias_[kNumGates];
  bf16 x_[kCellElements][kNumGates] = {};
  std::uint8_t start_[kCellElements] = {};
};

__device__ void advance_states(const Block& block, int thread) {
  const MmaPlan& plan = block.plan;
  const int first = thread / plan.slice;
  const int local = thread % plan.slice;
  const int dim = block.first_dim + local;
  const bool writes = thread / 32 * 32 < plan.split_cells();
  CellPair cells(block, first, dim);
  const int sums_pitch = mma_sums_pitch(plan.slice);
  const int gate_stride = plan.rows * sums_pitch;
  const float* const own = block.sums + min(first, plan.rows - 1) * sums_pitch + local;
  const int to_second = plan.rows > 2 ? 2 * sums_pitch : 0;
  const int written = first * block.pitch() + dim;
  const int second_written = 2 * block.pitch();
  const Exchange::Piece one = Exchange::piece<1>();
  const Exchange::Piece two = Exchange::piece<2>();
  const int sent_one =
      one.element / plan.slice * block.pitch() + block.first_dim + one.element % plan.slice;
  const int sent_two = (two.element / plan.slice + 2 * two.set) * block.pitch() + block.first_dim +
                       two.element % plan.slice;

  for (int t = 0; t < block.steps(); ++t) {
    wait_for_sums();
    if (!writes) continue;
    bf16* const h_next = block.h_at(t + 1);
    bf16 h[kCellElements];
#pragma unroll
    for (int e = 0; e < kCellElements; ++e) {
      float products[kNumGates];
#pragma unroll
      for (int g = 0; g < kNumGates; ++g) {
        const float* const from = own + e * to_second + g * gate_stride;
        products[g] = from[0] + from[kNumGates * gate_stride];
      }
      h[e] = __float2bfloat16_rn(cells.advance(e, products));
    }
    if (cells.active(0)) h_next[written] = h[0];
    if (cells.active(1)) h_next[written + second_written] = h[1];
    if (t + 1 < block.steps()) {
      if (plan.rows > 2) {
        block.exchange.send<2>(t, h_next + sent_two);
      } else {
        block.exchange.send<1>(t, h_next + sent_one);
      }
    }
    cells.save_and_fetch();
  }
}

// One cluster: one head, up to four batch rows, all time steps.
template <int kGroups, int kTiles, int kHeld>
__global__ void __launch_bounds__(kSplitThreads, 1)
    slstm_split_fwd_kernel(ForwardPointers<bf16> p, MmaPlan plan) {
  extern __shared__ __align__(16) unsigned char shared[];
  const int thread = static_cast<int>(threadIdx.x);
  auto* const spilled = reinterpret_cast<MmaWeights*>(shared + 16);
  float* const sums =
      reinterpret_cast<float*>(spilled + kSplitWarps * (kTiles - kHeld) * kGroups * 32);
  bf16* const h = reinterpret_cast<bf16*>(sums + 8 * plan.rows * mma_sums_pitch(plan.slice));
  const int rank = static_cast<int>(blockIdx.x) % plan.cluster;
  const std::int64_t unit = blockIdx.x / static_cast<unsigned>(plan.cluster);
  const std::int64_t head = unit % p.n.heads;
  const std::int64_t first_sequence = unit / p.n.heads * plan.rows;
  const int size = static_cast<int>(p.n.size);
  const int pitch = mma_forward_pitch(plan.padded);
  for (int i = thread; i < 2 * plan.rows * pitch; i += kSplitThreads) {
    const std::int64_t from = first_sequence + i / pitch;
    const bool given =
        p.h0 != nullptr && i < plan.rows * pitch && from < p.n.batch && i % pitch < size;
    h[i] = __float2bfloat16_rn(given ? p.h0[(from * p.n.heads + head) * size + i % pitch] : 0.0f);
  }
  const Exchange exchange(reinterpret_cast<std::uint64_t*>(shared), plan.cluster, rank,
                          plan.split_cells(), plan.rows > 2 ? 2 : 1);
  const Block block{p, plan, exchange, spilled, sums, h, head, first_sequence, rank * plan.slice};
  if (thread < kSplitCellThreads) {
    cuda::shrink_registers<kSplitCellRegisters>();
    advance_states(block, thread);
  } else {
    cuda::grow_registers<kSplitRegisters>();
    multiply<kGroups, kTiles, kHeld>(block, (thread - kSplitCellThreads) / 32);
  }
}

}  // namespace

bool forward_split(const cuda::Stream& stream, const CellForwardArgs& args, const MmaPlan& plan) {
  const ForwardPointers<bf16> p(args);
  const std::int64_t units = p.n.heads * ((p.n.batch + plan.rows - 1) / plan.rows);
  const cuda::LaunchShape shape{.grid = cuda::grid_size(units * plan.cluster, 1),
                                .block = kSplitThreads,
                                .shared_bytes = mma_forward_shared_bytes(plan),
                                .cluster = static_cast<unsigned>(plan.cluster)};
  const auto run = [&](auto kernel) {
    return cuda::launch_if_cluster_fits("slstm_fwd", stream, shape, kernel, p, plan);
  };
  return plan.slice == 32 ? run(slstm_split_fwd_kernel<2, 16, 16>)
                          : run(slstm_split_fwd_kernel<3, 24, 12>);
}

}  // namespace carousel::slstm
