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

#include "core/cuda/launch.h"
#include "layers/mlstm/cuda/hopper.cuh"
#include "layers/mlstm/cuda/hopper_grads.h"
#include "layers/mlstm/cuda/tensor_map.h"
#include "layers/mlstm/cuda/warp.cuh"
#include "layers/mlstm/cuda/wgmma.cuh"

namespace carousel::mlstm::cuda {
namespace {

using namespace hopper;  // NOLINT: this file is written in its terms
using carousel::cuda::launch;
using carousel::cuda::Stream;

constexpr int kThreads = 384;
constexpr int kWorkers = 256;  // the first two warpgroups
constexpr int kWorkerWarps = kWorkers / 32;
constexpr int kSummers = 96;  // warps 1 to 3 of the third
constexpr int kSummerWarps = kSummers / 32;
constexpr int kSlice = 64;  // DV columns at a time
constexpr int kMaxShared = 227 << 10;
enum BarrierId { kAllWorkers = 1, kAllSummers = 2, kFirstGroup = 3 };

struct GradParams {
  CUtensorMap q, k, v, dh, c, dc, dq, dk;
  Problem p;
  const GateBlock* gates;
  const GradBlock* grads;
  const float* n;
  const float* dn;
  TokenSums sums;
  bool store_dq, store_dk;
};

template <int dqk>
struct Layout {
  static constexpr int kColumns = std::min(dqk, 128);  // of DQK in one pass
  static constexpr int kPasses = dqk / kColumns;
  static constexpr int kPanels = kColumns / kPanelColumns;
  static constexpr int kChunkPanel = kChunk * kPanelRowBytes;  // 128 tokens × 64 columns
  static constexpr int kSlicePanel = kSlice * kPanelRowBytes;  // 64 rows of a state × 64 columns
  static constexpr int kTile = kPanels * kChunkPanel;          // Q or K
  static constexpr int kState = kPanels * kSlicePanel;         // 64 DV rows of a state
  // A stage holds [V_s | dH_s | C_s | dC_s], or [Q | K].
  static constexpr int kStatesAt = 2 * kChunkPanel;
  static constexpr int kStage = kStatesAt + 2 * kState;
  static constexpr int kScores = 2 * kChunkPanel;  // dS: 128 × 128
  static constexpr int kColumnGates = (2 * kChunk + kBlock) * 4;
  static constexpr int kNormals = 2 * kColumns * 4;  // n and dn
  static constexpr int kStages =
      std::min(4, (kMaxShared - kScores - kColumnGates - kNormals - 128) / kStage);
  static constexpr int kScoresAt = kStages * kStage;
  static constexpr int kGatesAt = kScoresAt + kScores;
  static constexpr int kNormalsAt = kGatesAt + kColumnGates;
  static constexpr int kBarriersAt = kNormalsAt + kNormals;
  static constexpr int kBytes = kBarriersAt + 128;
  static_assert(kStages >= 3 && 2 * kTile <= kStage);
};

// Where a role stands in the ring of stages.
template <int stages>
struct Ring {
  int stage = 0;
  unsigned parity = 0;

  __device__ void next() {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

struct Barriers {
  std::uint64_t full[4], empty[4];
  float partial[kSummerWarps];  // of Y
};

struct Tile {
  int unit, chunk;

  __device__ Tile(const Problem& p, int index)
      : unit(index / p.chunks()), chunk(index % p.chunks()) {}
  __device__ std::int64_t state(const Problem& p) const {
    return static_cast<std::int64_t>(unit) * p.chunks() + chunk;
  }
  __device__ std::int64_t block(const Problem& p) const {
    return static_cast<std::int64_t>(unit) * p.blocks + chunk * kChunkBlocks;
  }
};

// What every role knows: the order in which tiles and stages come.
template <int dqk>
struct Role {
  using L = Layout<dqk>;
  const GradParams& params;
  std::uint8_t* shared;
  Barriers& barriers;
  Ring<L::kStages> ring = {};

  __device__ int slices() const { return (params.p.dv + kSlice - 1) / kSlice; }
  template <class F>
  __device__ void for_each_tile(F&& f) const {
    const Problem& p = params.p;
    for (int index = static_cast<int>(blockIdx.x); index < p.units() * p.chunks();
         index += static_cast<int>(gridDim.x)) {
      f(Tile(p, index));
    }
  }
  __device__ std::uint8_t* stage() const { return shared + ring.stage * L::kStage; }
  __device__ void wait_full() const { barrier_wait(&barriers.full[ring.stage], ring.parity); }
  __device__ void release(int stage) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(&barriers.empty[stage]);
  }
};

template <int dqk>
struct Feeder : Role<dqk> {
  using L = Layout<dqk>;
  using Role<dqk>::params;
  using Role<dqk>::barriers;
  using Role<dqk>::ring;

  __device__ void run() {
    this->for_each_tile([this](const Tile& tile) {
      for (int pass = 0; pass < L::kPasses; ++pass) {
        for (int s = 0; s < this->slices(); ++s) slice(tile, pass, s);
        queries_and_keys(tile, pass);
      }
    });
  }

 private:
  __device__ std::uint8_t* begin(unsigned bytes) {
    barrier_wait(&barriers.empty[ring.stage], ring.parity ^ 1);
    barrier_expect(&barriers.full[ring.stage], bytes);
    return this->stage();
  }
  __device__ void slice(const Tile& tile, int pass, int s) {
    const Problem& p = params.p;
    std::uint8_t* stage = begin(L::kStage);
    std::uint64_t* full = &barriers.full[ring.stage];
    const int head = tile.unit % p.heads;
    const int batch = tile.unit / p.heads;
    load_box(stage, params.v, full, s * kSlice, head, tile.chunk * kChunk, batch);
    load_box(stage + L::kChunkPanel, params.dh, full, s * kSlice, head, tile.chunk * kChunk, batch);
#pragma unroll
    for (int panel = 0; panel < L::kPanels; ++panel) {
      const int column = pass * L::kColumns + panel * kPanelColumns;
      const int index = static_cast<int>(tile.state(p));
      std::uint8_t* to = stage + L::kStatesAt + panel * L::kSlicePanel;
      load_box(to, params.c, full, column, s * kSlice, index, 0);
      load_box(to + L::kState, params.dc, full, column, s * kSlice, index, 0);
    }
    ring.next();
  }
  __device__ void queries_and_keys(const Tile& tile, int pass) {
    const Problem& p = params.p;
    std::uint8_t* stage = begin(2 * L::kTile);
    std::uint64_t* full = &barriers.full[ring.stage];
#pragma unroll
    for (int panel = 0; panel < L::kPanels; ++panel) {
      const int column = pass * L::kColumns + panel * kPanelColumns;
      std::uint8_t* to = stage + panel * L::kChunkPanel;
      load_box(to, params.q, full, column, tile.unit % p.heads, tile.chunk * kChunk,
               tile.unit / p.heads);
      load_box(to + L::kTile, params.k, full, column, tile.unit % p.heads, tile.chunk * kChunk,
               tile.unit / p.heads);
    }
    ring.next();
  }
};

// Y = decay·(⟨C, dC⟩ + ⟨n, dn⟩): what passes over the whole chunk.
template <int dqk>
struct Summer : Role<dqk> {
  using L = Layout<dqk>;
  using Role<dqk>::params;
  using Role<dqk>::barriers;
  using Role<dqk>::ring;
  int thread;  // among the summers

  __device__ void run() {
    this->for_each_tile([this](const Tile& tile) {
      const Problem& p = params.p;
      float sum = 0.0f;
      for (int pass = 0; pass < L::kPasses; ++pass) {
        for (int s = 0; s < this->slices(); ++s) {
          this->wait_full();
          add_slice(this->stage() + L::kStatesAt, sum);
          this->release(ring.stage);
          ring.next();
        }
        this->release(ring.stage);  // Q and K are the workers'
        ring.next();
      }
      const std::int64_t n = tile.state(p) * p.dqk;
      for (int d = thread; d < p.dqk; d += kSummers) {
        sum = fmaf(params.n[n + d], params.dn[n + d], sum);
      }
      sum = warp_sum(sum);
      if (thread % 32 == 0) barriers.partial[thread / 32] = sum;
      named_barrier<kSummers>(kAllSummers);
      if (thread == 0) {
        const GateBlock* g = params.gates + tile.block(p);
        const float total = barriers.partial[0] + barriers.partial[1] + barriers.partial[2];
        params.sums.passing[tile.state(p)] = g[0].decay * g[1].decay * total;
      }
      named_barrier<kSummers>(kAllSummers);
    });
  }

 private:
  // C_s and dC_s lie alike, so that their order does not matter.
  __device__ void add_slice(const std::uint8_t* states, float& sum) const {
    const auto* c = reinterpret_cast<const uint4*>(states);
    const auto* dc = reinterpret_cast<const uint4*>(states + L::kState);
    for (int i = thread; i < L::kState / 16; i += kSummers) {
      const uint4 a = c[i];
      const uint4 b = dc[i];
      add_pair(a.x, b.x, sum);
      add_pair(a.y, b.y, sum);
      add_pair(a.z, b.z, sum);
      add_pair(a.w, b.w, sum);
    }
  }
  static __device__ void add_pair(std::uint32_t a, std::uint32_t b, float& sum) {
    const float2 x = unpack(a);
    const float2 y = unpack(b);
    sum = fmaf(x.x, y.x, fmaf(x.y, y.y, sum));
  }
};

// 64 rows of a gradient × the columns of one pass.
template <int columns>
struct GradTile {
  float x[columns / 2];

  __device__ void zero() {
#pragma unroll
    for (float& value : x) value = 0.0f;
  }
  /// Element e of the thread's row h in 8-column piece j.
  __device__ float& at(int j, int h, int e) { return x[4 * j + 2 * h + e]; }
};

// One of the two warpgroups: rows 64·group … of the chunk, queries for dQ, keys for dK.
template <int dqk>
struct Worker : Role<dqk> {
  using L = Layout<dqk>;
  using Role<dqk>::params;
  using Role<dqk>::shared;
  using Role<dqk>::ring;
  using Grad = GradTile<L::kColumns>;
  int group, thread;

  // Of the thread's two rows: Σ_d q·dq or k·dk over its columns, through the states and in all.
  struct Sums {
    float state[2] = {0.0f, 0.0f};
    float total[2] = {0.0f, 0.0f};
  };

  __device__ int warp() const { return thread / 32; }
  __device__ int lane() const { return thread % 32; }
  /// The thread's rows in its block are row() and row() + 8.
  __device__ int row() const { return 16 * warp() + lane() / 4; }
  __device__ float* column_gates() const { return reinterpret_cast<float*>(shared + L::kGatesAt); }

  __device__ void run() {
    this->for_each_tile([this](const Tile& tile) {
      fetch_column_gates(tile);
      Sums q_sums, k_sums;
      run_pass<0>(tile, q_sums, k_sums);
      if constexpr (L::kPasses > 1) run_pass<1>(tile, q_sums, k_sums);
      write_sums(tile, q_sums, params.sums.q_state, params.sums.q_own);
      write_sums(tile, k_sums, params.sums.k_state, params.sums.k_own);
    });
    if (thread == 0) wait_stores();
  }

 private:
  __device__ const GateBlock* gates(const Tile& tile) const {
    return params.gates + tile.block(params.p);
  }
  __device__ float carry(const Tile& tile, int r) const {
    const GateBlock* g = gates(tile);
    return group == 0 ? g[0].carry[r] : g[0].decay * g[1].carry[r];
  }
  __device__ float to_state(const Tile& tile, int r) const {
    const GateBlock* g = gates(tile);
    return group == 0 ? g[0].to_state[r] * g[1].decay : g[1].to_state[r];
  }

  template <int pass>
  __device__ void run_pass(const Tile& tile, Sums& q_sums, Sums& k_sums) {
    fetch_normals(tile, pass);
    Grad dq, dk;
    float scores[kChunk / 2];
    add_slices<pass == 0>(dq, dk, scores);
    named_barrier<kWorkers>(kAllWorkers);  // gates and n are there; the last dS has been read
    if constexpr (pass == 0) weigh_scores(tile, scores);
    add_chunk(tile, pass, dq, dk, q_sums, k_sums);
  }

  __device__ void fetch_normals(const Tile& tile, int pass) const {
    const int t = 128 * group + thread;
    const int column = pass * L::kColumns + t % L::kColumns;
    if (t >= 2 * L::kColumns) return;
    const float* from =
        (t < L::kColumns ? params.n : params.dn) + tile.state(params.p) * params.p.dqk;
    reinterpret_cast<float*>(shared + L::kNormalsAt)[t] =
        column < params.p.dqk ? from[column] : 0.0f;
  }

  // Columns of D: log-weights of all keys, and to_state of the first block's.
  __device__ void fetch_column_gates(const Tile& tile) const {
    const GateBlock* g = gates(tile);
    const int t = 128 * group + thread;
    float* to = column_gates();
    to[t] = t < kChunk ? g[t / kBlock].cumulative[t % kBlock]
                       : g[t / kBlock - kChunkBlocks].input[t % kBlock];
    if (t < kBlock) to[2 * kChunk + t] = g[0].to_state[t];
  }

  // Zeroed accumulators that are always added to: overwriting at the first step alone would keep
  // the assembler from placing the registers of all three.
  template <bool with_scores>
  __device__ void add_slices(Grad& dq, Grad& dk, float (&scores)[kChunk / 2]) {
    dq.zero();
    dk.zero();
    if constexpr (with_scores) {
#pragma unroll
      for (float& x : scores) x = 0.0f;
    }
    int previous = 0;
    for (int s = 0; s < this->slices(); ++s) {
      this->wait_full();
      const std::uint32_t stage = shared_address(this->stage());
      const auto rows = static_cast<unsigned>(group * kBlock * kPanelRowBytes);
      const std::uint64_t keys = operand(stage);
      const std::uint64_t v = operand(stage + rows);
      const std::uint64_t dh = operand(stage + L::kChunkPanel + rows);
      const std::uint64_t c = operand(stage + L::kStatesAt, L::kSlicePanel);
      const std::uint64_t dc = operand(stage + L::kStatesAt + L::kState, L::kSlicePanel);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kSlice / 16; ++k) {
        const int along = k * 16 * kPanelRowBytes;
        if constexpr (with_scores) {
          Wgmma<kChunk>::ss<Major::kK, Major::kK>(scores, advance(dh, 32 * k),
                                                  advance(keys, 32 * k), true);
        }
        Wgmma<L::kColumns>::template ss<Major::kK, Major::kMn>(dq.x, advance(dh, 32 * k),
                                                               advance(c, along), true);
        Wgmma<L::kColumns>::template ss<Major::kK, Major::kMn>(dk.x, advance(v, 32 * k),
                                                               advance(dc, along), true);
      }
      wgmma_commit();
      wgmma_wait<1>();
      if (s > 0) this->release(previous);
      previous = ring.stage;
      ring.next();
    }
    wgmma_wait<0>();
    this->release(previous);
  }

  // scores (dP) → dS in shared memory: (query, key), 64 keys a panel.
  __device__ void weigh_scores(const Tile& tile, const float (&scores)[kChunk / 2]) const {
    const GateBlock& g = gates(tile)[group];
    const GradBlock& d = params.grads[tile.block(params.p) + group];
    const float* cumulative = column_gates();
    const float* input = cumulative + kChunk;
    const float* first_to_state = input + kChunk;
    float weight[2], delta[2], carried[2], own[2];
    int first[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = row() + 8 * h;
      weight[h] = d.weight[r];
      delta[h] = d.delta[r];
      carried[h] = g.carry[r];
      own[h] = g.cumulative[r];
      first[h] = g.first[r];
    }
#pragma unroll
    for (int k = 0; k < kChunk / 16; ++k) {
      const int block = k / (kBlock / 16);
      std::uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int h = i % 2;
        const int column = 16 * k + i / 2 * 8 + 2 * (lane() % 4);
        float x[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int c = column % kBlock + e;
          float w = 0.0f;
          if (block == group) {
            const float e2 = exp2_fast((own[h] - cumulative[column + e]) + input[column + e]);
            w = c <= row() + 8 * h && c >= first[h] ? e2 : 0.0f;
          } else if (block < group) {
            w = carried[h] * first_to_state[c];
          }
          x[e] = fmaf(scores[8 * k + 2 * i + e], weight[h], delta[h]) * w;
        }
        a[i] = pack(x[0], x[1]);
      }
      // Matrix m of the four: rows 8(m mod 2) …, 8-column piece m / 2.
      const int at = kBlock * group + 16 * warp() + lane() % 8 + 8 * (lane() / 8 % 2);
      const std::uint32_t panel = shared_address(shared + L::kScoresAt + block * L::kChunkPanel);
      store_matrices(panel + panel_offset(at, 2 * (k % 4) + lane() / 16), a[0], a[1], a[2], a[3]);
    }
    fence_async_proxy();
  }

  // What comes from within the chunk, the sums, and the results' way out.
  __device__ void add_chunk(const Tile& tile, int pass, Grad& dq, Grad& dk, Sums& q_sums,
                            Sums& k_sums) {
    const Problem& p = params.p;
    this->wait_full();
    std::uint8_t* q = this->stage();
    std::uint8_t* k = q + L::kTile;
    const GradBlock& d = params.grads[tile.block(p) + group];
    {
      const std::uint32_t q_pair = first_pair(q);
      const std::uint32_t k_pair = first_pair(k);
      const std::uint32_t n =
          shared_address(shared + L::kNormalsAt) + 8u * static_cast<unsigned>(lane() % 4);
      const std::uint32_t dn = n + 4u * L::kColumns;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int r = row() + 8 * h;
        const float seen = carry(tile, r);
        const float held = to_state(tile, r);
        q_sums.state[h] += finish_state(h, dq, q_pair, seen * d.weight[r], seen * d.delta[r], n);
        k_sums.state[h] += finish_state(h, dk, k_pair, held, held, dn);
      }
    }
    named_barrier<kWorkers>(kAllWorkers);  // both groups' dS is there
    const std::uint32_t scores = shared_address(shared + L::kScoresAt);
    const std::uint64_t queries = operand(shared_address(q), L::kChunkPanel);
    const std::uint64_t keys = operand(shared_address(k), L::kChunkPanel);
    const std::uint64_t ds_columns =
        operand(scores + static_cast<unsigned>(group * L::kChunkPanel));
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kChunk / 16; ++i) {
      const int along = i * 16 * kPanelRowBytes;
      const std::uint64_t ds_rows = operand(
          scores + static_cast<unsigned>(i / 4 * L::kChunkPanel + group * kBlock * kPanelRowBytes));
      Wgmma<L::kColumns>::template ss<Major::kK, Major::kMn>(dq.x, advance(ds_rows, i % 4 * 32),
                                                             advance(keys, along), true);
      Wgmma<L::kColumns>::template ss<Major::kMn, Major::kMn>(dk.x, advance(ds_columns, along),
                                                              advance(queries, along), true);
    }
    wgmma_commit();
    wgmma_wait<0>();
    named_barrier<kWorkers>(kAllWorkers);  // nobody multiplies by Q and K any more
    const std::uint32_t q_pair = first_pair(q);
    const std::uint32_t k_pair = first_pair(k);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      q_sums.total[h] += put_row(h, dq, q_pair);
      k_sums.total[h] += put_row(h, dk, k_pair);
    }
    fence_async_proxy();
    named_barrier<128>(kFirstGroup + group);
    if (thread == 0) {
      if (params.store_dq) store(tile, pass, params.dq, q);
      if (params.store_dk) store(tile, pass, params.dk, k);
      wait_stores_read<0>();
    }
    this->release(ring.stage);
    ring.next();
  }

  /// Where the thread's row and pair of columns lie in a tile of 128 tokens; pair() finds the
  /// others.
  __device__ std::uint32_t first_pair(std::uint8_t* tile) const {
    const auto at = static_cast<unsigned>(4 * (lane() % 4));
    return computed_here(shared_address(tile) + panel_offset(kBlock * group + row(), 0) + at);
  }
  /// Row h, piece j: the swizzle is an exclusive or, and rows 8 apart swizzle alike.
  static __device__ std::uint32_t pair(std::uint32_t first, int j, int h) {
    return (first ^ static_cast<unsigned>(j % 8 << 4)) +
           static_cast<unsigned>(j / 8 * L::kChunkPanel + h * 8 * kPanelRowBytes);
  }
  /// grad = grad·weight + normals·n_weight on row h; returns Σ x·grad. `normals` lie in shared
  /// memory.
  __device__ float finish_state(int h, Grad& grad, std::uint32_t x, float weight, float n_weight,
                                std::uint32_t normals) const {
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < L::kColumns / 8; ++j) {
      const float2 n = load_floats(normals + static_cast<unsigned>(32 * j));
      float& low = grad.at(j, h, 0);
      float& high = grad.at(j, h, 1);
      multiply_add_in_place(low, weight, n_weight * n.x);
      multiply_add_in_place(high, weight, n_weight * n.y);
      const float2 factor = unpack(load_word(pair(x, j, h)));
      sum = fmaf(factor.x, low, fmaf(factor.y, high, sum));
    }
    return sum;
  }
  /// Returns Σ x·grad over row h and overwrites x by grad.
  __device__ float put_row(int h, Grad& grad, std::uint32_t x) const {
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < L::kColumns / 8; ++j) {
      const float low = grad.at(j, h, 0);
      const float high = grad.at(j, h, 1);
      const float2 factor = unpack(load_word(pair(x, j, h)));
      sum = fmaf(factor.x, low, fmaf(factor.y, high, sum));
      store_word(pair(x, j, h), pack(low, high));
    }
    return sum;
  }
  __device__ void store(const Tile& tile, int pass, const CUtensorMap& map,
                        std::uint8_t* from) const {
    const Problem& p = params.p;
#pragma unroll
    for (int panel = 0; panel < L::kPanels; ++panel) {
      store_box(map, from + panel * L::kChunkPanel + group * kBlock * kPanelRowBytes,
                pass * L::kColumns + panel * kPanelColumns, tile.unit % p.heads,
                tile.chunk * kChunk + kBlock * group, tile.unit / p.heads);
    }
    commit_stores();
  }
  __device__ void write_sums(const Tile& tile, const Sums& sums, float* state, float* own) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float through = sums.state[h];
      float within = sums.total[h] - sums.state[h];
      through += __shfl_xor_sync(kFullWarp, through, 1);
      through += __shfl_xor_sync(kFullWarp, through, 2);
      within += __shfl_xor_sync(kFullWarp, within, 1);
      within += __shfl_xor_sync(kFullWarp, within, 2);
      if (lane() % 4 != 0) continue;
      const std::int64_t at = static_cast<std::int64_t>(tile.unit) * params.p.padded_time() +
                              tile.chunk * kChunk + kBlock * group + row() + 8 * h;
      state[at] = through;
      own[at] = within;
    }
  }
};

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
      barrier_init(&barriers.empty[s], kWorkerWarps + kSummerWarps);
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

void launch_hopper_grads(const Stream& stream, const Problem& p, const HopperGradArgs& args) {
  GradParams params{};
  const auto tokens = [&p](const __nv_bfloat16* data, int width, int rows) {
    return token_map(data, p.batch, p.time, p.heads, width, rows);
  };
  const std::int64_t states = static_cast<std::int64_t>(p.units()) * p.chunks();
  params.q = tokens(args.q, p.dqk, kChunk);
  params.k = tokens(args.k, p.dqk, kChunk);
  params.v = tokens(args.v, p.dv, kChunk);
  params.dh = tokens(args.dh, p.dv, kChunk);
  params.c = matrix_map(args.c, states, p.dv, p.dqk, kSlice);
  params.dc = matrix_map(args.dc, states, p.dv, p.dqk, kSlice);
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
  if (p.dqk <= 64) return launch_kernel<64>(stream, params);
  if (p.dqk <= 128) return launch_kernel<128>(stream, params);
  launch_kernel<256>(stream, params);
}

}  // namespace carousel::mlstm::cuda
