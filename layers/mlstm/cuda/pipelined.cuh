// What the pipelined kernels share: tiles that are copied ahead of their use, and products of a
// chunk's rows. 256 threads; a stage of shared memory holds what one step multiplies.
// Sources: the PTX ISA, sections on cp.async, ldmatrix and mma.
#pragma once

#include "layers/mlstm/cuda/pipelined.h"
#include "layers/mlstm/cuda/tiled.cuh"

namespace carousel::mlstm::cuda {

inline constexpr int kPipeThreads = 256;
inline constexpr int kPipeStages = 3;
inline constexpr int kStageBytes = 33536;  // three fit wherever a block may have 99 KiB
inline constexpr std::size_t kPipeSharedBytes = std::size_t{kPipeStages} * kStageBytes;
inline constexpr int kSide = kChunk;  // rows and columns of a result
inline constexpr int kStep = 32;      // terms of its sums that a step adds

/// Rows of `width` numbers in shared memory. Their 16-byte vectors are permuted so that those that
/// ldmatrix reads at once, of eight rows, lie in different banks.
template <int width>
struct PipeTile {
  __nv_bfloat16* x;

  __device__ explicit PipeTile(std::byte* at) : x(reinterpret_cast<__nv_bfloat16*>(at)) {}
  __device__ __nv_bfloat16* at(int row, int vector) const {
    const int key = width == kStep ? row / 2 % 4 : row % 8;
    return x + row * width + (vector ^ key) * Vector<__nv_bfloat16>::kSize;
  }
};

/// Copies 16 bytes, or writes zeros; to be waited for.
__device__ __forceinline__ void copy_vector(void* to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   static_cast<std::uint32_t>(__cvta_generic_to_shared(to))),
               "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}
template <int rows, int width>
__device__ void copy_tile(const PipeTile<width>& to, const TileSource<__nv_bfloat16>& from) {
  constexpr int kSize = Vector<__nv_bfloat16>::kSize;
  constexpr int kPerRow = width / kSize;
#pragma unroll
  for (int i = 0; i < rows * kPerRow / kPipeThreads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * kPipeThreads;
    const int r = at / kPerRow;
    const int v = at % kPerRow;
    const bool valid = r < from.rows && v * kSize < from.columns;
    copy_vector(to.at(r, v), from.data + (valid ? r * from.stride + v * kSize : 0), valid);
  }
}

/// Calls load(step, stage), which starts copies, two steps ahead of use(step, stage), where all
/// threads see them. Returns the last step's stage, whose contents stay.
template <class Load, class Use>
__device__ std::byte* pipeline(std::byte* stages, int steps, Load&& load, Use&& use) {
  const auto stage = [&](int step) { return stages + step % kPipeStages * kStageBytes; };
#pragma unroll
  for (int s = 0; s < kPipeStages - 1; ++s) {
    if (s < steps) load(s, stage(s));
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  for (int s = 0; s < steps; ++s) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPipeStages - 2) : "memory");
    __syncthreads();  // the copies of all threads; and all are done with the stage that is next
    if (s + kPipeStages - 1 < steps) load(s + kPipeStages - 1, stage(s + kPipeStages - 1));
    asm volatile("cp.async.commit_group;" ::: "memory");
    use(s, stage(s));
  }
  return stage(steps - 1);
}

/// A's 16 rows 16·group … and 16 columns 16k …
template <int width>
__device__ __forceinline__ void load_rows(std::uint32_t (&a)[4], const PipeTile<width>& tile,
                                          int group, int k) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  detail::load_matrices<false>(a, tile.at(16 * group + lane % 16, 2 * k + lane / 16));
}
/// B's 16 × 16 at rows 16k …, columns 16n …, as two 16 × 8: stored [n][k], or [k][n].
template <bool rows_are_n, int width>
__device__ __forceinline__ void load_factors(std::uint32_t (&b)[4], const PipeTile<width>& tile,
                                             int n, int k) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int upper = lane / 16;
  const int odd = lane / 8 % 2;
  if constexpr (rows_are_n) {
    detail::load_matrices<false>(b, tile.at(16 * n + 8 * upper + lane % 8, 2 * k + odd));
  } else {
    detail::load_matrices<true>(b, tile.at(16 * k + 8 * odd + lane % 8, 2 * n + upper));
  }
}

/// 16 rows × 128 columns of a warp: x[j][2h + e] is row 8h + lane / 4, column column(j) + e.
struct WideAccumulators {
  float x[kSide / 8][4] = {};

  static __device__ int column(int j) { return 8 * j + 2 * (static_cast<int>(threadIdx.x) % 4); }

  /// Adds a · b at columns 16n …
  __device__ __forceinline__ void add(const std::uint32_t (&a)[4], const std::uint32_t (&b)[4],
                                      int n) {
    detail::mma_bf16(x[2 * n], a, b[0], b[1]);
    detail::mma_bf16(x[2 * n + 1], a, b[2], b[3]);
  }
  /// f(element, j, h, e).
  template <class F>
  __device__ void for_each(F&& f) {
#pragma unroll
    for (int j = 0; j < kSide / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) f(x[j][i], j, i / 2, i % 2);
    }
  }
};

/// The rows of a chunk that a warp has, their scores with the chunk's tokens, and a result.
/// `earlier`: rows see the tokens up to themselves; else those from themselves on.
template <bool earlier>
struct ChunkRows {
  static constexpr int kGroups = kSide / 16;
  int group;  // which 16 rows. Warps w and w + 4 share a scheduler, and these rows see as many
              // tokens for every w.
  WideAccumulators scores, out;

  __device__ ChunkRows() {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    group = warp < kGroups / 2 ? warp : 3 * kGroups / 2 - 1 - warp;
  }
  /// Row of the chunk.
  __device__ int row(int h) const {
    return 16 * group + static_cast<int>(threadIdx.x) % 32 / 4 + 8 * h;
  }
  /// Which of the chunk's two blocks the rows are in.
  __device__ int block() const { return group / (kGroups / 2); }
  /// Whether some of the rows see some of the tokens 16n …
  __device__ bool sees(int n) const { return earlier ? n <= group : n >= group; }

  /// Adds rows · columnsᵀ, of one step, to the scores, and rows · factors to the result.
  template <bool factor_rows_are_n, int width, class... Tiles>
  __device__ __forceinline__ void add_step(const PipeTile<kStep>& rows,
                                           const PipeTile<kStep>& columns,
                                           const PipeTile<width>& factors, const Tiles&... more) {
#pragma unroll
    for (int k = 0; k < kStep / 16; ++k) {
      std::uint32_t a[4], b[4];
      load_rows(a, rows, group, k);
#pragma unroll
      for (int n = 0; n < kGroups; ++n) {
        if (sees(n)) {
          load_factors<true>(b, columns, n, k);
          scores.add(a, b, n);
        }
        load_factors<factor_rows_are_n>(b, factors, n, k);
        out.add(a, b, n);
        ((load_factors<factor_rows_are_n>(b, more, n, k), out.add(a, b, n)), ...);
      }
    }
  }

  /// Makes the scores weight(score, row, token, block of the token), with rows and tokens counted
  /// within their blocks; visit(score, h) follows.
  template <class Weight, class Visit>
  __device__ void weigh(Weight&& weight, Visit&& visit) {
#pragma unroll
    for (int n = 0; n < kGroups; ++n) {
      if (!sees(n)) continue;
#pragma unroll
      for (int j = 2 * n; j < 2 * n + 2; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int token = WideAccumulators::column(j) + i % 2;
          float& x = scores.x[j][i];
          x = weight(x, row(i / 2) % kBlock, token % kBlock, n / (kGroups / 2));
          visit(x, i / 2);
        }
      }
    }
  }

  /// Adds scores · values to the result, with values stored [token][column].
  __device__ void add_values(const PipeTile<kSide>& values) {
#pragma unroll
    for (int k = 0; k < kGroups; ++k) {
      if (!sees(k)) continue;
      const float* x = scores.x[2 * k];
      const float* y = scores.x[2 * k + 1];
      const std::uint32_t a[4] = {detail::pack_bf16(x[0], x[1]), detail::pack_bf16(x[2], x[3]),
                                  detail::pack_bf16(y[0], y[1]), detail::pack_bf16(y[2], y[3])};
#pragma unroll
      for (int n = 0; n < kGroups; ++n) {
        std::uint32_t b[4];
        load_factors<false>(b, values, n, k);
        out.add(a, b, n);
      }
    }
  }

  /// Writes the result's rows, of `width` numbers from column `left` on.
  template <class RowAt>
  __device__ void store(RowAt&& row_at, int left, int width, int rows) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (row(h) >= rows) continue;
      __nv_bfloat16* const to = row_at(row(h));
#pragma unroll
      for (int j = 0; j < kSide / 8; ++j) {
        const int c = left + WideAccumulators::column(j);
        if (c < width) {
          *reinterpret_cast<std::uint32_t*>(to + c) =
              detail::pack_bf16(out.x[j][2 * h], out.x[j][2 * h + 1]);
        }
      }
    }
  }
};

/// A CTA's place: chunks, units and slices of 128 columns.
struct ChunkPlace {
  int unit, chunk, slice;

  __device__ ChunkPlace(const Problem& p, int slices)
      : unit(static_cast<int>(blockIdx.x) / slices / p.chunks()),
        chunk(static_cast<int>(blockIdx.x) / slices % p.chunks()),
        slice(static_cast<int>(blockIdx.x) % slices) {}
  __device__ int left() const { return slice * kSide; }
  __device__ int first_block() const { return chunk * kChunkBlocks; }
  __device__ std::int64_t block_index(const Problem& p, int block) const {
    return static_cast<std::int64_t>(unit) * p.blocks + first_block() + block;
  }
  __device__ std::int64_t state_index(const Problem& p) const {
    return static_cast<std::int64_t>(unit) * p.chunks() + chunk;
  }
  __device__ TileSource<__nv_bfloat16> tokens(const Problem& p, const __nv_bfloat16* data,
                                              int width, int column) const {
    return token_tile(p, data, width, unit, first_block(), column, true);
  }
};

/// What a row sees of the state at its chunk's border: `g` are the chunk's blocks.
template <bool earlier>
__device__ float state_weight(const GateBlock* g, int block, int row) {
  if constexpr (earlier) return g[block].carry[row] * (block == 0 ? 1.0f : g[0].decay);
  return g[block].to_state[row] * (block == 0 ? g[1].decay : 1.0f);
}

}  // namespace carousel::mlstm::cuda
