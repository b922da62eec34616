// The walk on Hopper. Per unit (batch × head) and DV slice one CTA walks over blocks of 64 tokens
// and keeps its slice of the state, transposed (DV rows × DQK columns, float32), in the registers
// of two warpgroups, where it is at once the accumulator of its own update and, rounded to bf16,
// the A operand of the product with Q. Per block, with P = rows·columnsᵀ (q·kᵀ; backward k·qᵀ):
//   outᵀ = out_scaleᵀ ⊙ (State · rowsᵀ) + valuesᵀ · (P ⊙ D)ᵀ
//   State = decay · State + (valuesᵀ ⊙ update) · columns
// Forward:  D_ij = weight of token j in row i; out_scale = carry; update = to_state; out is divided
// by
//           the normaliser, which comes from the row sums of P ⊙ D and from q·n.
// Backward: D_ji·s/N_i; out_scale = to_state; update = carry·s/N: dv_j and dC.
// Warpgroups 0 and 1 hold the state, warpgroup 2 makes P ⊙ D one block ahead and keeps n, warpgroup
// 3 feeds the copy engine.
#include <algorithm>

#include "core/cuda/launch.h"
#include "layers/mlstm/cuda/hopper.cuh"
#include "layers/mlstm/cuda/hopper_walk.h"
#include "layers/mlstm/cuda/tensor_map.h"
#include "layers/mlstm/cuda/warp.cuh"
#include "layers/mlstm/cuda/wgmma.cuh"

namespace carousel::mlstm::cuda {
namespace {

using namespace hopper;  // NOLINT: this file is written in its terms
using carousel::cuda::grid_size;
using carousel::cuda::launch;
using carousel::cuda::Stream;

constexpr int kThreads = 512;
constexpr int kHolderWarps = 8;
constexpr int kScorerWarps = 4;
constexpr int kMaxShared = 227 << 10;

struct WalkParams {
  CUtensorMap rows, columns, values, out;
  Problem p;
  const GateBlock* gates;
  const GradBlock* grads;
  float* normaliser;
  float* sign;
  float eps;
  __nv_bfloat16* states;
  float* state_n;
  const float* c_first;  // one natural state a (unit, segment)
  const float* n_first;
  float* c_last;  // one a (unit, segment) if every segment ends in one, else one a unit
  float* n_last;
  int slices, segments, blocks_per_segment;
  bool every_segment_ends;
};

// Shared memory, in bytes from a base that is a multiple of 1024.
template <int dqk, int tiles, bool forward>
struct Layout {
  static constexpr int kPanels = dqk / kPanelColumns;
  static constexpr int kPanel = kBlock * kPanelRowBytes;
  // Forward, n lies below the rows of k, so that one product gives P and q·n.
  static constexpr int kScoreColumns = forward ? kBlock + 8 : kBlock;
  static constexpr int kColumnPanel = kScoreColumns * kPanelRowBytes;
  static constexpr int kRows = 0;
  static constexpr int kColumns = kRows + kPanels * kPanel;
  static constexpr int kValues = kColumns + kPanels * kColumnPanel;
  static constexpr int kStage = kValues + 2 * tiles * kPanel;
  static constexpr int kGates = kGateBytes + (forward ? 0 : static_cast<int>(sizeof(GradBlock)));
  static constexpr int kGateStage = (kGates + 127) / 128 * 128;
  static constexpr int kScores = kPanel;
  static constexpr int kOut = 2 * tiles * kPanel;
  static constexpr int kFixed = 2 * kScores + kOut + 2 * kBlock * 4 + 256;
  static constexpr int kStages = std::min(4, (kMaxShared - 1024 - kFixed) / (kStage + kGateStage));
  static constexpr int kScoresAt = kStages * kStage;
  static constexpr int kOutAt = kScoresAt + 2 * kScores;
  static constexpr int kGatesAt = kOutAt + kOut;
  static constexpr int kInverseAt = kGatesAt + kStages * kGateStage;
  static constexpr int kBarriersAt = kInverseAt + 2 * kBlock * 4;
  static constexpr int kBytes = kBarriersAt + 256 + 1024;  // and room to align the base
  static_assert(kStages >= 2);
};

struct Barriers {
  std::uint64_t full[4], empty[4], scores_full[2], scores_empty[2];
};

// Everything a warpgroup's role needs to find its data.
template <class L, bool forward>
struct Walk {
  const WalkParams& params;
  std::uint8_t* shared;
  Barriers& barriers;
  int unit, segment, slice, steps;

  __device__ int block(int step) const {
    const int index = segment * params.blocks_per_segment + step;
    return forward ? index : params.p.blocks - 1 - index;
  }
  __device__ std::uint8_t* stage(int s) const { return shared + s * L::kStage; }
  __device__ const GateBlock& gates(int s) const {
    return *reinterpret_cast<const GateBlock*>(shared + L::kGatesAt + s * L::kGateStage);
  }
  __device__ const GradBlock& grads(int s) const {
    return *reinterpret_cast<const GradBlock*>(shared + L::kGatesAt + s * L::kGateStage +
                                               kGateBytes);
  }
  __device__ std::uint8_t* scores(int buffer) const {
    return shared + L::kScoresAt + buffer * L::kScores;
  }
  __device__ float* inverse(int buffer) const {
    return reinterpret_cast<float*>(shared + L::kInverseAt) + buffer * kBlock;
  }
  /// A state is saved at the first block of each chunk in walking order.
  __device__ bool saves(int step) const { return step % kChunkBlocks == 0; }
  __device__ std::int64_t chunk(int step) const {
    return static_cast<std::int64_t>(unit) * params.p.chunks() + block(step) / kChunkBlocks;
  }
  /// Index of the natural state that this CTA ends with; −1 if none.
  __device__ std::int64_t last_state() const {
    if (params.every_segment_ends)
      return static_cast<std::int64_t>(unit) * params.segments + segment;
    return segment == params.segments - 1 ? unit : -1;
  }
};

// --- the copy engine's feeder ------------------------------------------------------------------

template <class L, int tiles, bool forward, bool whole>
__device__ void feed(const Walk<L, forward>& walk) {
  const WalkParams& params = walk.params;
  const int batch = walk.unit / params.p.heads;
  const int head = walk.unit % params.p.heads;
  constexpr unsigned kRowBytes = L::kPanels * L::kPanel;
  constexpr unsigned kBytes = kRowBytes + 2 * tiles * L::kPanel + L::kGates;
  for (int step = 0; step < walk.steps; ++step) {
    const int s = step % L::kStages;
    const int use = step / L::kStages;
    std::uint64_t* full = &walk.barriers.full[s];
    barrier_wait(&walk.barriers.empty[s], (use + 1) & 1);
    barrier_expect(full, kBytes + (whole ? kRowBytes : 0));
    std::uint8_t* stage = walk.stage(s);
    const int token = walk.block(step) * kBlock;
#pragma unroll
    for (int panel = 0; panel < L::kPanels; ++panel) {
      const int column = panel * kPanelColumns;
      load_box(stage + L::kColumns + panel * L::kColumnPanel, params.columns, full, column, head,
               token, batch);
      if constexpr (whole) {
        load_box(stage + L::kRows + panel * L::kPanel, params.rows, full, column, head, token,
                 batch);
      }
    }
#pragma unroll
    for (int panel = 0; panel < 2 * tiles; ++panel) {
      const int column = (walk.slice * 2 * tiles + panel) * kPanelColumns;
      load_box(stage + L::kValues + panel * L::kPanel, params.values, full, column, head, token,
               batch);
    }
    const std::int64_t index =
        static_cast<std::int64_t>(walk.unit) * params.p.blocks + walk.block(step);
    std::uint8_t* gates = walk.shared + L::kGatesAt + s * L::kGateStage;
    load_bytes(gates, params.gates + index, kGateBytes, full);
    if constexpr (!forward) {
      load_bytes(gates + kGateBytes, params.grads + index, sizeof(GradBlock), full);
    }
  }
}

// --- the scorer: P ⊙ D and n -------------------------------------------------------------------

// n in float32, two neighbouring columns a thread.
template <class L, int dqk, bool forward>
struct Normals {
  float x[2] = {0.0f, 0.0f};
  int column;  // of x[0]; no columns from dqk on

  __device__ Normals(const Walk<L, forward>& walk, int thread) : column(2 * thread) {
    const WalkParams& params = walk.params;
    if (params.n_first == nullptr) return;
    const float* from =
        params.n_first +
        (static_cast<std::int64_t>(walk.unit) * params.segments + walk.segment) * params.p.dqk;
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (column + e < params.p.dqk) x[e] = from[column + e];
    }
  }
  __device__ bool active() const { return column < dqk; }
  __device__ void write(const Walk<L, forward>& walk, float* to) const {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (column + e < walk.params.p.dqk) to[column + e] = x[e];
    }
  }
  /// As two bf16 rows, the rounded value and what is left, below the 64 rows of the columns
  /// operand.
  __device__ void put_rows(std::uint8_t* columns) const {
    const std::uint32_t high = pack(x[0], x[1]);
    const float2 rounded = unpack(high);
    const std::uint32_t low = pack(x[0] - rounded.x, x[1] - rounded.y);
    std::uint8_t* panel = columns + column / kPanelColumns * L::kColumnPanel;
    const int piece = column % kPanelColumns / 8;
    const int within = column % 8 * 2;
    *reinterpret_cast<std::uint32_t*>(panel + panel_offset(kBlock, piece) + within) = high;
    *reinterpret_cast<std::uint32_t*>(panel + panel_offset(kBlock + 1, piece) + within) = low;
  }
  /// n = decay·n + Σ_t w_t·columns_t.
  __device__ void advance(const std::uint8_t* columns, const GateBlock& gates,
                          const GradBlock* grads) {
    const std::uint8_t* panel = columns + column / kPanelColumns * L::kColumnPanel;
    const int piece = column % kPanelColumns / 8;
    const int within = column % 8 * 2;
    x[0] *= gates.decay;
    x[1] *= gates.decay;
#pragma unroll 8
    for (int t = 0; t < kBlock; ++t) {
      const float w = forward ? gates.to_state[t] : gates.carry[t] * grads->delta[t];
      const float2 k =
          unpack(*reinterpret_cast<const std::uint32_t*>(panel + panel_offset(t, piece) + within));
      x[0] = fmaf(w, k.x, x[0]);
      x[1] = fmaf(w, k.y, x[1]);
    }
  }
};

// Weights of one row of P; `row` and the columns count in the block.
template <bool forward>
struct RowWeights {
  float cumulative, input;
  int row, first;

  __device__ RowWeights(const GateBlock& g, int r)
      : cumulative(g.cumulative[r]), input(g.input[r]), row(r), first(g.first[r]) {}
  __device__ float operator()(const GateBlock& g, const GradBlock* grads, int column) const {
    if constexpr (forward) {
      const float x = exp2_fast((cumulative - g.cumulative[column]) + g.input[column]);
      return column <= row && column >= first ? x : 0.0f;
    } else {
      const float x = exp2_fast((g.cumulative[column] - cumulative) + input);
      return column >= row && row >= g.first[column] ? x * grads->weight[column] : 0.0f;
    }
  }
};

// Forward: 1/N of a row, from the sum of its scores over its four threads and from q·n.
template <class L>
__device__ void finish_row(const Walk<L, true>& walk, const GateBlock& g, int buffer, int step,
                           int row, float sum, float q_n, int lane) {
  sum += __shfl_xor_sync(kFullWarp, sum, 1);
  sum += __shfl_xor_sync(kFullWarp, sum, 2);
  if (lane % 4 != 0) return;
  const WalkParams& params = walk.params;
  const float denominator = params.p.scale * fmaf(g.carry[row], q_n, sum);
  const float magnitude = fabsf(denominator);
  const float bound = g.bound[row];
  const float normaliser = fmaxf(magnitude, bound) + params.eps;
  walk.inverse(buffer)[row] = params.p.scale / normaliser;
  const int token = walk.block(step) * kBlock + row;
  if (walk.slice == 0 && params.normaliser != nullptr && token < params.p.time) {
    const std::int64_t at = params.p.row(walk.unit, token);
    params.normaliser[at] = normaliser;
    params.sign[at] = magnitude > bound ? copysignf(1.0f, denominator) : 0.0f;
  }
}

template <class L, int dqk, bool forward>
__device__ void make_scores(const Walk<L, forward>& walk, int step, int thread) {
  const int warp = thread / 32;
  const int lane = thread % 32;
  const int s = step % L::kStages;
  const int buffer = step & 1;
  const std::uint32_t rows = shared_address(walk.stage(s) + L::kRows);
  const std::uint32_t columns = shared_address(walk.stage(s) + L::kColumns);
  float acc[L::kScoreColumns / 2];
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < dqk / 16; ++k) {
    const int within = k % 4 * 32;
    Wgmma<L::kScoreColumns>::template ss<Major::kK, Major::kK>(
        acc, operand(rows + static_cast<unsigned>(k / 4 * L::kPanel + within)),
        operand(columns + static_cast<unsigned>(k / 4 * L::kColumnPanel + within)), k > 0);
  }
  wgmma_commit();
  barrier_wait(&walk.barriers.scores_empty[buffer], ((step >> 1) + 1) & 1);
  wgmma_wait<0>();

  const GateBlock& g = walk.gates(s);
  const GradBlock* grads = forward ? nullptr : &walk.grads(s);
  const int top = 16 * warp + lane / 4;
  const RowWeights<forward> weights[2] = {{g, top}, {g, top + 8}};
  float sums[2] = {0.0f, 0.0f};
  const std::uint32_t scores = shared_address(walk.scores(buffer));
#pragma unroll
  for (int j = 0; j < kBlock / 8; j += 2) {  // two 8-column pieces at a time
    std::uint32_t pairs[2][2];               // [piece][row]
#pragma unroll
    for (int piece = 0; piece < 2; ++piece) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int column = 8 * (j + piece) + 2 * (lane % 4);
        const float* p = acc + 4 * (j + piece) + 2 * r;
        const float x = p[0] * weights[r](g, grads, column);
        const float y = p[1] * weights[r](g, grads, column + 1);
        sums[r] += x + y;
        pairs[piece][r] = pack(x, y);
      }
    }
    // Matrix m of the four: rows 8(m mod 2) …, piece j + m / 2; lane l gives row l mod 8 of matrix
    // l / 8.
    const int row = 16 * warp + lane % 8 + 8 * (lane / 8 % 2);
    store_matrices(scores + panel_offset(row, j + lane / 16), pairs[0][0], pairs[0][1], pairs[1][0],
                   pairs[1][1]);
  }
  if constexpr (forward) {
    finish_row(walk, g, buffer, step, top, sums[0], acc[32] + acc[33], lane);
    finish_row(walk, g, buffer, step, top + 8, sums[1], acc[34] + acc[35], lane);
  }
  fence_async_proxy();
  __syncwarp();
  if (lane == 0) barrier_arrive(&walk.barriers.scores_full[buffer]);
}

template <class L, int dqk, bool forward, bool whole>
__device__ void score(const Walk<L, forward>& walk, int thread) {
  const WalkParams& params = walk.params;
  Normals<L, dqk, forward> n(walk, thread);
  for (int step = 0; step < walk.steps; ++step) {
    const int s = step % L::kStages;
    if (params.state_n != nullptr && walk.slice == 0 && walk.saves(step)) {
      n.write(walk, params.state_n + walk.chunk(step) * params.p.dqk);
    }
    if constexpr (forward && whole) {
      if (n.active()) n.put_rows(walk.stage(s) + L::kColumns);
      fence_async_proxy();
      named_barrier<128>(3);
    }
    barrier_wait(&walk.barriers.full[s], (step / L::kStages) & 1);
    if constexpr (whole) make_scores<L, dqk, forward>(walk, step, thread);
    if (n.active()) {
      n.advance(walk.stage(s) + L::kColumns, walk.gates(s), forward ? nullptr : &walk.grads(s));
    }
    __syncwarp();
    if (thread % 32 == 0) barrier_arrive(&walk.barriers.empty[s]);
  }
  const std::int64_t last = walk.last_state();
  if (params.n_last != nullptr && walk.slice == 0 && last >= 0) {
    n.write(walk, params.n_last + last * params.p.dqk);
  }
}

// --- the holders: the state, out and the update ------------------------------------------------

// One 64-row tile of the state: rows are DV, columns DQK, in the accumulators' layout.
template <int dqk>
struct StateTile {
  // Products over 128 columns: 256 at once would need more registers than a thread starts with.
  static constexpr int kColumns = std::min(dqk, 128);
  static constexpr int kParts = dqk / kColumns;
  float x[kParts][kColumns / 2];

  /// f(element, row, column), counted from the thread's first element.
  template <class F>
  __device__ void for_each(int top, int left, F&& f) {
#pragma unroll
    for (int i = 0; i < dqk / 2; ++i) {
      f(x[i / (kColumns / 2)][i % (kColumns / 2)], top + i / 2 % 2 * 8, left + i / 4 * 8 + i % 2);
    }
  }
  /// Columns 16k … as an A operand.
  __device__ void operand(int k, std::uint32_t (&a)[4]) const {
    const float* part = x[16 * k / kColumns] + 16 * k % kColumns / 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = pack(part[2 * i], part[2 * i + 1]);
  }
  /// Adds a (64 × 16) times rows 16k … of a tile of 64 tokens × dqk in panels; asynchronous.
  __device__ void add_product(const std::uint32_t (&a)[4], std::uint32_t panels, int panel_stride,
                              int k) {
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const int offset = part * (kColumns / kPanelColumns) * panel_stride + k * 16 * kPanelRowBytes;
      Wgmma<kColumns>::template rs<Major::kMn>(
          x[part], a, hopper::operand(panels + static_cast<unsigned>(offset), panel_stride), true);
    }
  }
};

// The four lanes of a row hold pairs (8i + 2·lane, … + 1), i = 0 … 3, of its 32 columns; afterwards
// lane l holds columns 8l … 8l + 7: a transposition by two exchanges.
__device__ __forceinline__ uint4 gather_columns(std::uint32_t x0, std::uint32_t x1,
                                                std::uint32_t x2, std::uint32_t x3, int lane) {
  const bool odd = (lane & 1) != 0;
  const bool upper = (lane & 2) != 0;
  const auto exchange = [](std::uint32_t& low, std::uint32_t& high, bool mine, int mask) {
    const std::uint32_t got = __shfl_xor_sync(kFullWarp, mine ? low : high, mask);
    (mine ? low : high) = got;
  };
  exchange(x0, x1, odd, 1);
  exchange(x2, x3, odd, 1);
  exchange(x0, x2, upper, 2);
  exchange(x1, x3, upper, 2);
  return make_uint4(x0, x1, x2, x3);
}

template <int dqk>
__device__ void save_tile(const StateTile<dqk>& tile, const Problem& p, __nv_bfloat16* matrix,
                          int top, int lane) {
#pragma unroll
  for (int k = 0; k < dqk / 32; ++k) {
    std::uint32_t a[2][4];
    tile.operand(2 * k, a[0]);
    tile.operand(2 * k + 1, a[1]);
    const int column = 32 * k + 8 * (lane % 4);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint4 packed = gather_columns(a[0][h], a[0][h + 2], a[1][h], a[1][h + 2], lane);
      const int row = top + 8 * h;
      if (row < p.dv && column < p.dqk) {
        *reinterpret_cast<uint4*>(matrix + static_cast<std::int64_t>(row) * p.dqk + column) =
            packed;
      }
    }
  }
}

// h = State · rowsᵀ: (64 DV) × (64 tokens). A batch of 16-column steps is rounded while the one
// before it is multiplied.
template <class L, int dqk, int batch>
__device__ void multiply_rows(float (&h)[32], const StateTile<dqk>& tile, std::uint32_t rows) {
  std::uint32_t a[2][batch][4];
#pragma unroll
  for (int b = 0; b < dqk / 16 / batch; ++b) {
    if (b >= 2) wgmma_wait<1>();
#pragma unroll
    for (int e = 0; e < batch; ++e) tile.operand(batch * b + e, a[b % 2][e]);
    wgmma_fence();
#pragma unroll
    for (int e = 0; e < batch; ++e) {
      const int k = batch * b + e;
      Wgmma<64>::rs<Major::kK>(
          h, a[b % 2][e], operand(rows + static_cast<unsigned>(k / 4 * L::kPanel + k % 4 * 32)),
          k > 0);
    }
    wgmma_commit();
  }
}

// valuesᵀ of 64 tokens as A operands: 16 tokens each.
struct ValueTile {
  std::uint32_t a[4][4];

  __device__ ValueTile(std::uint32_t panel, int warp, int lane) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int token = 16 * k + lane / 16 * 8 + lane % 8;
      load_matrices_transposed(a[k], panel + panel_offset(token, 2 * warp + lane / 8 % 2));
    }
  }
  /// Multiplies token t by weight(t).
  template <class F>
  __device__ void scale(int lane, F&& weight) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int token = 16 * k + 8 * half + 2 * (lane % 4);
        const float low = weight(token);
        const float high = weight(token + 1);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const float2 x = unpack(a[k][2 * half + h]);
          a[k][2 * half + h] = pack(low * x.x, high * x.y);
        }
      }
    }
  }
};

template <class L, int dqk, int tiles, bool forward, bool whole>
__device__ void hold(const Walk<L, forward>& walk, int group, int thread) {
  const WalkParams& params = walk.params;
  const Problem& p = params.p;
  const int warp = thread / 32;
  const int lane = thread % 32;
  const int batch = walk.unit / p.heads;
  const int head = walk.unit % p.heads;
  const int first_panel = group * tiles;  // in the CTA's slice
  const int first_column = (walk.slice * 2 * tiles + first_panel) * kPanelColumns;  // of DV
  const int top = first_column + 16 * warp + lane / 4;
  const int left = 2 * (lane % 4);
  const std::int64_t state_size = static_cast<std::int64_t>(p.dqk) * p.dv;

  StateTile<dqk> state[tiles];
  const float* c_first =
      params.c_first == nullptr
          ? nullptr
          : params.c_first +
                (static_cast<std::int64_t>(walk.unit) * params.segments + walk.segment) *
                    state_size;
#pragma unroll
  for (int m = 0; m < tiles; ++m) {
    state[m].for_each(top + 64 * m, left, [&](float& x, int row, int column) {
      const bool inside = c_first != nullptr && row < p.dv && column < p.dqk;
      x = inside ? c_first[static_cast<std::int64_t>(column) * p.dv + row] : 0.0f;
    });
  }

  for (int step = 0; step < walk.steps; ++step) {
    const int s = step % L::kStages;
    const int buffer = step & 1;
    const std::uint32_t stage = shared_address(walk.stage(s));
    barrier_wait(&walk.barriers.full[s], (step / L::kStages) & 1);
    const GateBlock& g = walk.gates(s);
    if (params.states != nullptr && walk.saves(step)) {
      __nv_bfloat16* matrix = params.states + walk.chunk(step) * state_size;
#pragma unroll
      for (int m = 0; m < tiles; ++m) save_tile(state[m], p, matrix, top + 64 * m, lane);
    }
#pragma unroll
    for (int m = 0; m < tiles; ++m) {
      float h[32];
      if constexpr (whole) {
        wgmma_wait<0>();  // tells the assembler what the loop guarantees: the state is at rest
        multiply_rows<L, dqk, 2 / tiles>(h, state[m], stage + L::kRows);
        wgmma_wait<0>();
#pragma unroll
        for (int j = 0; j < 8; ++j) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int token = 8 * j + left + e;
            const float carried = forward ? g.carry[token] : g.to_state[token];
            h[4 * j + e] *= carried;
            h[4 * j + 2 + e] *= carried;
          }
        }
      }
      ValueTile values(stage + L::kValues + static_cast<unsigned>((first_panel + m) * L::kPanel),
                       warp, lane);
      if constexpr (whole) {
        if (m == 0) barrier_wait(&walk.barriers.scores_full[buffer], (step >> 1) & 1);
        const std::uint32_t scores = shared_address(walk.scores(buffer));
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          Wgmma<64>::rs<Major::kK>(h, values.a[k], operand(scores + static_cast<unsigned>(32 * k)),
                                   true);
        }
        wgmma_commit();
      }
      const float decay = g.decay;
      state[m].for_each(0, 0, [decay](float& x, int, int) { x *= decay; });
      if constexpr (whole) wgmma_wait<0>();
      values.scale(lane, [&](int token) {
        return forward ? g.to_state[token] : g.carry[token] * walk.grads(s).weight[token];
      });
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        state[m].add_product(values.a[k], stage + L::kColumns, L::kColumnPanel, k);
      }
      wgmma_commit();
      if constexpr (whole) {  // out, while the update runs
        std::uint8_t* out = walk.shared + L::kOutAt + (first_panel + m) * L::kPanel;
        if (thread == 0) wait_stores_read<tiles - 1>();
        named_barrier<128>(1 + group);
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
          std::uint32_t pairs[2][2];  // [8-token piece][8-row half]
#pragma unroll
          for (int piece = 0; piece < 2; ++piece) {
            const int token = 8 * (j + piece) + left;
            const float low = forward ? walk.inverse(buffer)[token] : 1.0f;
            const float high = forward ? walk.inverse(buffer)[token + 1] : 1.0f;
            const float* x = h + 4 * (j + piece);
            pairs[piece][0] = pack(low * x[0], high * x[1]);
            pairs[piece][1] = pack(low * x[2], high * x[3]);
          }
          // Matrix i of the four: DV piece i mod 2, tokens 8(j + i / 2) …; stored transposed, token
          // by row.
          const int token = 8 * j + lane / 16 * 8 + lane % 8;
          store_matrices_transposed(
              shared_address(out) + panel_offset(token, 2 * warp + lane / 8 % 2), pairs[0][0],
              pairs[0][1], pairs[1][0], pairs[1][1]);
        }
        fence_async_proxy();
        named_barrier<128>(1 + group);
        if (thread == 0) {
          store_box(params.out, out, first_column + 64 * m, head, walk.block(step) * kBlock, batch);
          commit_stores();
        }
      }
    }
    wgmma_wait<0>();
    if (lane == 0) {
      barrier_arrive(&walk.barriers.empty[s]);
      if constexpr (whole) barrier_arrive(&walk.barriers.scores_empty[buffer]);
    }
  }
  if (const std::int64_t last = walk.last_state(); params.c_last != nullptr && last >= 0) {
    float* to = params.c_last + last * state_size;
#pragma unroll
    for (int m = 0; m < tiles; ++m) {
      state[m].for_each(top + 64 * m, left, [&](float& x, int row, int column) {
        if (row < p.dv && column < p.dqk) to[static_cast<std::int64_t>(column) * p.dv + row] = x;
      });
    }
  }
  if (thread == 0) wait_stores();
}

template <int dqk, int tiles, bool forward, bool whole>
__global__ void __launch_bounds__(kThreads, 1)
    walk_kernel(const __grid_constant__ WalkParams params) {
  using L = Layout<dqk, tiles, forward>;
  extern __shared__ std::uint8_t raw[];
  std::uint8_t* shared = raw + (1024 - (shared_address(raw) & 1023)) % 1024;
  Barriers& barriers = *reinterpret_cast<Barriers*>(shared + L::kBarriersAt);
  const int group = static_cast<int>(threadIdx.x) / 128;
  const int thread = static_cast<int>(threadIdx.x) % 128;
  if (threadIdx.x == 0) {
    for (int s = 0; s < L::kStages; ++s) {
      barrier_init(&barriers.full[s], 1);
      barrier_init(&barriers.empty[s], kHolderWarps + kScorerWarps);
    }
    for (int b = 0; b < 2; ++b) {
      barrier_init(&barriers.scores_full[b], kScorerWarps);
      barrier_init(&barriers.scores_empty[b], kHolderWarps);
    }
    fence_barrier_init();
  }
  __syncthreads();
  const int segment = static_cast<int>(blockIdx.y);
  const int begin = segment * params.blocks_per_segment;
  const Walk<L, forward> walk{params,
                              shared,
                              barriers,
                              static_cast<int>(blockIdx.x) / params.slices,
                              segment,
                              static_cast<int>(blockIdx.x) % params.slices,
                              min(params.blocks_per_segment, params.p.blocks - begin)};
  if (group == 3) {
    shrink_registers<24>();
    if (thread == 0) feed<L, tiles, forward, whole>(walk);
  } else if (group == 2) {
    shrink_registers<72>();
    score<L, dqk, forward, whole>(walk, thread);
  } else {
    grow_registers<208>();
    hold<L, dqk, tiles, forward, whole>(walk, group, thread);
  }
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
    const float end = slot;
    slot = start;
    if (segment + 1 < segments) start = fmaf(decays[segment], start, end);
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

template <int dqk, int tiles, bool forward>
void launch_kernel(const Stream& stream, int segments, bool whole, const WalkParams& params) {
  const dim3 grid(grid_size(static_cast<std::int64_t>(params.p.units()) * params.slices, 1),
                  static_cast<unsigned>(segments));
  launch(forward ? "mlstm_walk_fwd" : "mlstm_walk_bwd", stream,
         {.grid = grid,
          .block = kThreads,
          .shared_bytes = static_cast<std::size_t>(Layout<dqk, tiles, forward>::kBytes)},
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
  params.states = args.states;
  params.state_n = args.state_n;
  params.c_last = args.c_last;
  params.n_last = args.n_last;
  launch_instance<forward>(stream, plan, plan.segments, whole, params);
}

}  // namespace

std::size_t walk_scratch_bytes(const Problem& p, const WalkPlan& plan) {
  if (plan.segments == 1) return 0;
  return static_cast<std::size_t>(p.units()) * static_cast<std::size_t>(plan.segments) *
         static_cast<std::size_t>(p.dqk) * static_cast<std::size_t>(p.dv + 1) * sizeof(float);
}

void launch_walk_fwd(const Stream& stream, const Problem& p, const WalkPlan& plan,
                     const WalkArgs& args, void* scratch) {
  launch_walk<true>(stream, p, plan, args, scratch);
}

void launch_walk_bwd(const Stream& stream, const Problem& p, const WalkPlan& plan,
                     const WalkArgs& args, void* scratch) {
  launch_walk<false>(stream, p, plan, args, scratch);
}

}  // namespace carousel::mlstm::cuda
