// dq and dk on Hopper: the two warpgroups that multiply.
#pragma once

#include "layers/mlstm/cuda/hopper_grads_layout.cuh"
#include "layers/mlstm/cuda/wgmma.cuh"

namespace carousel::mlstm::cuda::grads {

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

}  // namespace carousel::mlstm::cuda::grads
