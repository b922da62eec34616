// dq and dk on Hopper: parameters, shared memory, and the roles of the third warpgroup.
#pragma once

#include <algorithm>

#include "layers/mlstm/cuda/hopper.cuh"
#include "layers/mlstm/cuda/hopper_grads.h"
#include "layers/mlstm/cuda/warp.cuh"

namespace carousel::mlstm::cuda::grads {

using namespace hopper;  // NOLINT: these kernels are written in its terms

inline constexpr int kThreads = 384;
inline constexpr int kWorkers = 256;  // the first two warpgroups
inline constexpr int kWorkerWarps = kWorkers / 32;
inline constexpr int kSummers = 96;  // warps 1 to 3 of the third
inline constexpr int kSummerWarps = kSummers / 32;
inline constexpr int kSlice = 64;  // DV columns at a time
inline constexpr int kMaxShared = 227 << 10;
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
  __device__ void release(int stage) const { warp_arrive(&barriers.empty[stage]); }
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
    // V and dH come back in the next pass; nothing else does.
    const Keep keep = pass + 1 < L::kPasses ? Keep::kNormal : Keep::kBriefly;
    load_box(stage, params.v, full, s * kSlice, head, tile.chunk * kChunk, batch, keep);
    load_box(stage + L::kChunkPanel, params.dh, full, s * kSlice, head, tile.chunk * kChunk, batch,
             keep);
#pragma unroll
    for (int panel = 0; panel < L::kPanels; ++panel) {
      const int column = pass * L::kColumns + panel * kPanelColumns;
      const int index = static_cast<int>(tile.state(p));
      std::uint8_t* to = stage + L::kStatesAt + panel * L::kSlicePanel;
      load_box(to, params.c, full, column, s * kSlice, index, 0, Keep::kBriefly);
      load_box(to + L::kState, params.dc, full, column, s * kSlice, index, 0, Keep::kBriefly);
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
               tile.unit / p.heads, Keep::kBriefly);
      load_box(to + L::kTile, params.k, full, column, tile.unit % p.heads, tile.chunk * kChunk,
               tile.unit / p.heads, Keep::kBriefly);
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
        // Q and K are the workers'. Released before they are there, the stage's barrier could still
        // be counting for what was there before them.
        this->wait_full();
        this->release(ring.stage);
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

}  // namespace carousel::mlstm::cuda::grads
