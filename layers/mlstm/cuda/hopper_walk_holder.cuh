// The walk on Hopper: the two warpgroups that hold the state, make out and update the state.
#pragma once

#include <algorithm>

#include "layers/mlstm/cuda/hopper_walk_layout.cuh"
#include "layers/mlstm/cuda/wgmma.cuh"

namespace carousel::mlstm::cuda::walk {

// x less its nearest bf16 number, found in integers: the assembler would keep the results of cvt
// from an earlier rounding, which there are no registers for.
__device__ __forceinline__ float rounding_error(float x) {
  const std::uint32_t bits = __float_as_uint(x);
  return x - __uint_as_float((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
}

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
  /// What operand() rounds away, rounded. Nothing of operand() is kept for it: it is rarely called.
  __device__ void rest_operand(int k, std::uint32_t (&a)[4]) const {
    const float* part = x[16 * k / kColumns] + 16 * k % kColumns / 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      a[i] = pack(rounding_error(part[2 * i]), rounding_error(part[2 * i + 1]));
    }
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

// A warpgroup's two panels of shared memory that results leave through, in turn.
struct Exit {
  std::uint8_t* panels;
  int barrier;  // the warpgroup's
  bool leader;  // its first thread, which starts the copies
  int turn = 0;

  /// The free panel: its last copy has left.
  __device__ std::uint32_t enter() const {
    if (leader) wait_stores_read<1>();
    named_barrier<128>(barrier);
    return shared_address(panels + turn * kBlock * kPanelRowBytes);
  }
  /// Sends the panel to the box at (x, y, z, w).
  __device__ void leave(const CUtensorMap& map, int x, int y, int z, int w) {
    fence_async_proxy();
    named_barrier<128>(barrier);
    if (leader) {
      store_box(map, panels + turn * kBlock * kPanelRowBytes, x, y, z, w);
      commit_stores();
    }
    turn ^= 1;
  }
};

// Saves 64 rows of a state, rounded to bf16, from `first_row` of matrix `index` on.
template <int dqk>
__device__ void save_tile(const StateTile<dqk>& tile, const CUtensorMap& states, Exit& exit,
                          int warp, int lane, int first_row, int index) {
#pragma unroll
  for (int column = 0; column < dqk; column += kPanelColumns) {
    const std::uint32_t panel = exit.enter();
#pragma unroll
    for (int k = 0; k < kPanelColumns / 16; ++k) {
      std::uint32_t a[4];
      tile.operand(column / 16 + k, a);
      // Matrix m of the four: rows 8(m mod 2) …, piece m / 2.
      const int row = 16 * warp + lane % 8 + 8 * (lane / 8 % 2);
      store_matrices(panel + panel_offset(row, 2 * k + lane / 16), a[0], a[1], a[2], a[3]);
    }
    exit.leave(states, column, first_row, index, 0);
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

// h += what rounding State left out of it.
template <class L, int dqk>
__device__ void add_rest(float (&h)[32], const StateTile<dqk>& tile, std::uint32_t rows) {
  std::uint32_t a[2][4];
#pragma unroll
  for (int k = 0; k < dqk / 16; ++k) {
    if (k >= 2) wgmma_wait<1>();
    tile.rest_operand(k, a[k % 2]);
    wgmma_fence();
    Wgmma<64>::rs<Major::kK>(
        h, a[k % 2], operand(rows + static_cast<unsigned>(k / 4 * L::kPanel + k % 4 * 32)), true);
    wgmma_commit();
  }
  wgmma_wait<0>();
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

  Exit exit{walk.shared + L::kOutAt + group * 2 * L::kPanel, 1 + group, thread == 0};
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
    if (params.save_states && walk.saves(step)) {
#pragma unroll
      for (int m = 0; m < tiles; ++m) {
        save_tile(state[m], params.states, exit, warp, lane, first_column + 64 * m,
                  static_cast<int>(walk.chunk(step)));
      }
    }
#pragma unroll
    for (int m = 0; m < tiles; ++m) {
      float h[32];
      if constexpr (whole) {
        wgmma_wait<0>();  // tells the assembler what the loop guarantees: the state is at rest
        multiply_rows<L, dqk, 2 / tiles>(h, state[m], stage + L::kRows);
        if (m == 0) barrier_wait(&walk.barriers.scores_full[buffer], (step >> 1) & 1);
        wgmma_wait<0>();
        if (walk.barriers.two_parts[buffer] != 0) {
          add_rest<L, dqk>(h, state[m], stage + L::kRows);
        }
#pragma unroll
        for (int j = 0; j < 8; ++j) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int token = 8 * j + left + e;
            const float carried = forward ? g.carry[token] : g.to_state[token];
            multiply_in_place(h[4 * j + e], carried);
            multiply_in_place(h[4 * j + 2 + e], carried);
          }
        }
      }
      ValueTile values(stage + L::kValues + static_cast<unsigned>((first_panel + m) * L::kPanel),
                       warp, lane);
      if constexpr (whole) {
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
      state[m].for_each(0, 0, [decay](float& x, int, int) { multiply_in_place(x, decay); });
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
        const std::uint32_t out = exit.enter();
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
          store_matrices_transposed(out + panel_offset(token, 2 * warp + lane / 8 % 2), pairs[0][0],
                                    pairs[0][1], pairs[1][0], pairs[1][1]);
        }
        exit.leave(params.out, first_column + 64 * m, head, walk.block(step) * kBlock, batch);
      }
    }
    wgmma_wait<0>();
    walk.release(s);
    if constexpr (whole) warp_arrive(&walk.barriers.scores_empty[buffer]);
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

}  // namespace carousel::mlstm::cuda::walk
