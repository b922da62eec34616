// What the tiled kernels share: where tiles lie, and the weights between tokens.
#pragma once

#include "layers/mlstm/cuda/blocks.h"
#include "layers/mlstm/cuda/tile.cuh"

namespace carousel::mlstm::cuda {

/// Tile of a (B, S, NH, width) tensor: one block of tokens of a unit, columns from `column` on.
template <class T>
__device__ TileSource<T> token_tile(const Problem& p, const T* data, int width, int unit, int block,
                                    int column, bool vectors) {
  const int token = block * kBlock;
  return {data + p.row(unit, token) * width + column, static_cast<std::int64_t>(p.heads) * width,
          p.time - token, width - column, vectors};
}

/// Tile of a saved state (DV × DQK).
template <class T>
__device__ TileSource<T> state_tile(const Problem& p, const T* state, int row, int column,
                                    bool vectors) {
  return {state + static_cast<std::int64_t>(row) * p.dqk + column, p.dqk, p.dv - row,
          p.dqk - column, vectors};
}

__device__ __forceinline__ float exponential(float x, float) { return exp2f(x); }
__device__ __forceinline__ float exponential(float x, __nv_bfloat16) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// What token j weighs in row i (i >= j) of two blocks of one chunk; `between` is the product of
/// the decays of the blocks between them.
template <class T>
struct TokenWeights {
  const GateBlock& queries;
  const GateBlock& keys;
  bool same_block;
  float between;

  __device__ float operator()(int i, int j) const {
    if (!same_block) return queries.carry[i] * between * keys.to_state[j];
    if (j > i || j < queries.first[i]) return 0.0f;
    const float high = queries.cumulative[i] - keys.cumulative[j];
    return exponential((high + queries.remainder[i]) + keys.input[j], T());
  }
};

/// Writes two neighbouring elements of a row, of `width`, the second only if it exists.
template <class T>
__device__ __forceinline__ void store_pair(T* row, int column, int width, float first,
                                           float second) {
  if (column < width) row[column] = from_float<T>(first);
  if (column + 1 < width) row[column + 1] = from_float<T>(second);
}

/// What a row is divided by, of its denominator and the least that counts.
struct Normaliser {
  float denominator, bound, eps;

  __device__ float value() const { return fmaxf(fabsf(denominator), bound) + eps; }
  /// The denominator's where it counts, else 0.
  __device__ float sign() const {
    return fabsf(denominator) > bound ? copysignf(1.0f, denominator) : 0.0f;
  }
};

/// The blocks of a row block's chunk that it meets: from itself towards the chunk's begin (forward)
/// or end, in walking order.
struct ChunkRange {
  int begin, end;  ///< the chunk's blocks

  __device__ ChunkRange(const Problem& p, int block, int chunk_blocks)
      : begin(block / chunk_blocks * chunk_blocks), end(min(begin + chunk_blocks, p.blocks)) {}
};

}  // namespace carousel::mlstm::cuda
