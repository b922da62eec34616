// The walk on Hopper: the warpgroup that makes the scores P ⊙ D one block ahead and keeps n.
#pragma once

#include "layers/mlstm/cuda/hopper_walk_layout.cuh"
#include "layers/mlstm/cuda/warp.cuh"
#include "layers/mlstm/cuda/wgmma.cuh"

namespace carousel::mlstm::cuda::walk {

inline constexpr int kNormalParts = 3;

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
  /// As three bf16 rows below the 64 rows of the columns operand: the rounded value, what is left,
  /// rounded, and what is left of that. Together they are the float32 number; two would be 2^-18
  /// off, which a q·n that cancels to a thousandth of its terms turns into several per mille.
  __device__ void put_rows(std::uint8_t* columns) const {
    std::uint8_t* panel = columns + column / kPanelColumns * L::kColumnPanel;
    const int piece = column % kPanelColumns / 8;
    const int within = column % 8 * 2;
    float2 rest = make_float2(x[0], x[1]);
#pragma unroll
    for (int part = 0; part < kNormalParts; ++part) {
      const std::uint32_t rounded = pack(rest.x, rest.y);
      const float2 taken = unpack(rounded);
      rest = make_float2(rest.x - taken.x, rest.y - taken.y);
      *reinterpret_cast<std::uint32_t*>(panel + panel_offset(kBlock + part, piece) + within) =
          rounded;
    }
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

// Rounding the state to bf16 makes what goes through it wrong by 2^-9 of its terms, and those may
// cancel. Where a denominator cancels to less than this share of its terms, that error, divided by
// it, would show beside all other rows' h: the block gets the state in two parts.
inline constexpr float kCancels = 0x1p-8f;
// Backward the same row, having been divided by that denominator, outweighs the others in dC.
inline constexpr float kOutweighs = 0x1p10f;

// Backward: the heaviest row in dC, by its weight s/N.
struct Heaviest {
  float in_state;

  /// A given state may hold anything.
  __device__ explicit Heaviest(bool given) : in_state(given ? 0x1p30f : 0.0f) {}
  /// Goes one block on; returns whether a row in the state before it outweighs the block's own.
  __device__ bool advance(const GateBlock& gates, const GradBlock& grads, int lane) {
    float least = INFINITY;
    float most = 0.0f;
#pragma unroll
    for (int t = lane; t < kBlock; t += 32) {
      const float weight = grads.weight[t];
      if (weight > 0.0f) least = fminf(least, weight);  // 0 past the sequence's end
      most = fmaxf(most, weight * gates.carry[t]);
    }
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      least = fminf(least, __shfl_xor_sync(kFullWarp, least, offset));
      most = fmaxf(most, __shfl_xor_sync(kFullWarp, most, offset));
    }
    const bool outweighs = in_state > kOutweighs * least;
    in_state = fmaxf(gates.decay * in_state, most);
    return outweighs;
  }
};

// Forward: the statistics of a row, from the sum of its scores over its four threads and from q·n.
// `terms` stands for what |q·n| would be if it did not cancel; returns whether the denominator
// does.
template <class L>
__device__ bool finish_row(const Walk<L, true>& walk, const GateBlock& g, int buffer, int row,
                           float sum, float q_n, float terms, int lane) {
  sum += __shfl_xor_sync(kFullWarp, sum, 1);
  sum += __shfl_xor_sync(kFullWarp, sum, 2);
  if (lane % 4 != 0) return false;
  constexpr float kLn2 = 0.69314718f;
  sum = fmaf(sum, kLn2 * g.remainder[row], sum);  // 2^remainder
  const float scale = walk.params.p.scale;
  const float denominator = scale * fmaf(g.carry[row], q_n, sum);
  const float magnitude = fabsf(denominator);
  const float bound = g.bound[row];
  const float normaliser = fmaxf(magnitude, bound) + walk.params.eps;
  walk.inverse(buffer)[row] = scale / normaliser;
  walk.normaliser(buffer)[row] = normaliser;
  walk.sign(buffer)[row] = magnitude > bound ? copysignf(1.0f, denominator) : 0.0f;
  return normaliser < kCancels * scale * g.carry[row] * terms;
}

template <class L, int dqk, bool forward>
__device__ void make_scores(const Walk<L, forward>& walk, int step, int thread,
                            [[maybe_unused]] bool outweighed) {
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
    // A row's first thread has the products with n's first two parts, the next the third's.
    const float rest[2] = {__shfl_down_sync(kFullWarp, acc[32], 1),
                           __shfl_down_sync(kFullWarp, acc[34], 1)};
    const float q_n[2] = {acc[32] + (acc[33] + rest[0]), acc[34] + (acc[35] + rest[1])};
    float terms = fmaxf(fabsf(q_n[0]), fabsf(q_n[1]));  // the largest of the warp's rows
#pragma unroll
    for (int offset = 4; offset < 32; offset *= 2) {
      terms = fmaxf(terms, __shfl_xor_sync(kFullWarp, terms, offset));
    }
    const bool first = finish_row(walk, g, buffer, top, sums[0], q_n[0], terms, lane);
    const bool second = finish_row(walk, g, buffer, top + 8, sums[1], q_n[1], terms, lane);
    const bool cancels = __any_sync(kFullWarp, first || second) != 0;
    if (lane == 0) walk.two_parts(buffer)[warp] = cancels ? 1 : 0;
  } else {
    if (lane == 0) walk.two_parts(buffer)[warp] = outweighed ? 1 : 0;
  }
  fence_async_proxy();
  warp_arrive(&walk.barriers.scores_full[buffer]);
}

template <class L, int dqk, bool forward, bool whole>
__device__ void score(const Walk<L, forward>& walk, int thread) {
  const WalkParams& params = walk.params;
  Normals<L, dqk, forward> n(walk, thread);
  [[maybe_unused]] Heaviest heaviest(params.c_first != nullptr);
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
    if constexpr (whole) {
      bool outweighed = false;
      if constexpr (!forward) {
        outweighed = heaviest.advance(walk.gates(s), walk.grads(s), thread % 32);
      }
      make_scores<L, dqk, forward>(walk, step, thread, outweighed);
    }
    if (n.active()) {
      n.advance(walk.stage(s) + L::kColumns, walk.gates(s), forward ? nullptr : &walk.grads(s));
    }
    walk.release(s);
  }
  const std::int64_t last = walk.last_state();
  if (params.n_last != nullptr && walk.slice == 0 && last >= 0) {
    n.write(walk, params.n_last + last * params.p.dqk);
  }
}

}  // namespace carousel::mlstm::cuda::walk
