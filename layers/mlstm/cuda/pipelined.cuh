// What the pipelined kernels share: tiles that are copied ahead of their use, and products of a
// chunk's rows. 256 threads; a stage of shared memory holds what one step multiplies.
// Sources: the PTX ISA, sections on cp.async, ldmatrix and mma.
#pragma once

#include "core/cuda/launch.h"
#include "layers/mlstm/cuda/pipelined.h"
#include "layers/mlstm/cuda/tiled.cuh"

namespace carousel::mlstm::cuda {

inline constexpr int kPipeThreads = 256;
inline constexpr int kPipeStages = 3;
inline constexpr int kStageBytes = 33536;  // three fit wherever a block may have 99 KiB
inline constexpr std::size_t kPipeSharedBytes = std::size_t{kPipeStages} * kStageBytes;
inline constexpr int kSide = kChunk;                   // rows and columns of a result
inline constexpr int kStep = 32;                       // terms of its sums that a step adds
inline constexpr int kMostStride = (1 << 30) / kSide;  // between the rows of a tile

inline constexpr int kStepTileBytes = kSide * kStep * static_cast<int>(sizeof(__nv_bfloat16));

/// The launch of a CTA for every chunk and slice of 128 columns.
inline carousel::cuda::LaunchShape chunk_launch(const Problem& p, int slices) {
  return {.grid = dim3(carousel::cuda::grid_size(
              static_cast<std::int64_t>(p.units()) * p.chunks() * slices, 1)),
          .block = kPipeThreads,
          .shared_bytes = kPipeSharedBytes};
}

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
template <int rows, int threads = kPipeThreads, int width>
__device__ void copy_tile(const PipeTile<width>& to, const TileSource<__nv_bfloat16>& from) {
  constexpr int kSize = Vector<__nv_bfloat16>::kSize;
  constexpr int kPerRow = width / kSize;
#pragma unroll
  for (int i = 0; i < rows * kPerRow / threads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * threads;
    const int r = at / kPerRow;
    const int v = at % kPerRow;
    const bool valid = r < from.rows && v * kSize < from.columns;
    // A tile's rows are less than 2^31 elements apart: kMostStride.
    const int offset = valid ? r * static_cast<int>(from.stride) + v * kSize : 0;
    copy_vector(to.at(r, v), from.data + offset, valid);
  }
}

/// Calls load(step, stage), which starts copies, two steps ahead of use(step, stage), where all
/// threads see them. Returns the last step's stage, whose contents stay.
template <int stage_bytes = kStageBytes, class Load, class Use>
__device__ std::byte* pipeline(std::byte* stages, int steps, Load&& load, Use&& use) {
  const auto stage = [&](int step) { return stages + step % kPipeStages * stage_bytes; };
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

/// 16 rows × 128 columns of a warp.
struct WideAccumulators : WarpAccumulators<kSide> {
  /// Adds a · b at columns 16n …
  __device__ __forceinline__ void add(const std::uint32_t (&a)[4], const std::uint32_t (&b)[4],
                                      int n) {
    detail::mma_bf16(x[2 * n], a, b[0], b[1]);
    detail::mma_bf16(x[2 * n + 1], a, b[2], b[3]);
  }
};

/// A lane has a word of each of four tiles; of the tile that is its place among four lanes it gets
/// all lanes' words.
__device__ __forceinline__ void transpose_quad(std::uint32_t (&w)[4]) {
  const bool odd = threadIdx.x % 2 != 0;
  const bool upper = threadIdx.x / 2 % 2 != 0;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const std::uint32_t got = __shfl_xor_sync(kFullWarp, odd ? w[i] : w[i + 1], 1);
    w[i] = odd ? got : w[i];
    w[i + 1] = odd ? w[i + 1] : got;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t got = __shfl_xor_sync(kFullWarp, upper ? w[i] : w[i + 2], 2);
    w[i] = upper ? got : w[i];
    w[i + 2] = upper ? w[i + 2] : got;
  }
}
/// Writes a row's neighbouring tiles of eight columns, `tiles` of them, a multiple of four, from
/// accumulators: pair(tile) is this lane's two numbers. `width` columns exist. All lanes call it;
/// those without `valid` write nothing.
template <int tiles, class Pair>
__device__ __forceinline__ void store_row(__nv_bfloat16* row, int width, bool valid, Pair&& pair) {
#pragma unroll
  for (int j = 0; j < tiles; j += 4) {
    std::uint32_t w[4] = {pair(j), pair(j + 1), pair(j + 2), pair(j + 3)};
    transpose_quad(w);
    const int column = 8 * (j + static_cast<int>(threadIdx.x) % 4);
    if (valid && column < width) {
      *reinterpret_cast<uint4*>(row + column) = uint4{w[0], w[1], w[2], w[3]};
    }
  }
}

/// This thread's warp, known to the compiler to be the same for all its threads.
__device__ __forceinline__ int warp_index() {
  return __shfl_sync(kFullWarp, static_cast<int>(threadIdx.x) / 32, 0);
}

/// Two neighbours of an array; `at` is even.
__device__ __forceinline__ float2 load_pair(const float* x, int at) {
  return *reinterpret_cast<const float2*>(x + at);
}

/// The rows of a chunk that a warp has, their scores with the chunk's tokens, and a result.
/// `earlier`: rows see the tokens up to themselves; else those from themselves on.
template <bool earlier>
struct ChunkRows {
  static constexpr int kGroups = kSide / 16;
  static constexpr int kBlockGroups = kGroups / kChunkBlocks;
  int group;  // which 16 rows. Warps w and w + 4 share a scheduler, and these rows see as many
              // tokens for every w.
  WideAccumulators scores, out;

  __device__ ChunkRows() {
    const int warp = warp_index();
    group = warp < kGroups / 2 ? warp : 3 * kGroups / 2 - 1 - warp;
  }
  /// Row of the chunk.
  __device__ int row(int h) const {
    return 16 * group + static_cast<int>(threadIdx.x) % 32 / 4 + 8 * h;
  }
  /// Which of the chunk's two blocks the rows are in.
  __device__ int block() const { return group / kBlockGroups; }
  /// Whether some of the rows see some of the tokens of a block, and of 16n …
  __device__ bool sees_block(int b) const { return earlier ? b <= block() : b >= block(); }
  __device__ bool sees(int n) const { return earlier ? n <= group : n >= group; }

  /// Adds rows · columnsᵀ, of one step, to the scores, and rows · factors to the result.
  template <bool factor_rows_are_n, class... Tiles>
  __device__ __forceinline__ void add_step(const PipeTile<kStep>& rows,
                                           const PipeTile<kStep>& columns,
                                           const Tiles&... factors) {
#pragma unroll
    for (int k = 0; k < kStep / 16; ++k) {
      std::uint32_t a[4];
      load_rows(a, rows, group, k);
#pragma unroll
      for (int b = 0; b < kChunkBlocks; ++b) {
        // Whole blocks, so that there is much to do between branches.
        if (sees_block(b)) {
          add_factors<true, kBlockGroups>(scores, a, columns, b * kBlockGroups, k);
        }
      }
      (add_factors<factor_rows_are_n, kGroups>(out, a, factors, 0, k), ...);
    }
  }

  /// Makes each score combine(score, h, e, more, w), with w what the earlier of row h and the token
  /// weighs in the later one, and `more` = load(block, token), of the token pair that e tells
  /// apart. `g` are the chunk's blocks. Nothing is loaded under a condition: loads then wait for
  /// each other.
  template <class Load, class Combine>
  __device__ __forceinline__ void weigh(const GateBlock* g, Load&& load, Combine&& combine) {
    if (sees_block(0)) weigh_block<0>(g, load, combine);
    if (sees_block(1)) weigh_block<1>(g, load, combine);
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
      add_factors<false, kGroups>(out, a, values, 0, k);
    }
  }

  /// Writes the result's rows, of `width` numbers from column `left` on.
  template <class RowAt>
  __device__ void store(RowAt&& row_at, int left, int width, int rows) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const bool valid = row(h) < rows;
      store_row<kSide / 8>(row_at(valid ? row(h) : 0) + left, width - left, valid, [&](int j) {
        return detail::pack_bf16(out.x[j][2 * h], out.x[j][2 * h + 1]);
      });
    }
  }

 private:
  template <int b, class Load, class Combine>
  __device__ __forceinline__ void weigh_block(const GateBlock* g, Load& load, Combine& combine) {
    const GateBlock& own = g[block()];
    const GateBlock& theirs = g[b];
    const int r[2] = {row(0) % kBlock, row(1) % kBlock};
    if (b != block()) {
      const float* const factors = earlier ? own.carry : own.to_state;
      const float factor[2] = {factors[r[0]], factors[r[1]]};
#pragma unroll
      for (int j = 0; j < 2 * kBlockGroups; ++j) {
        const int token = WideAccumulators::column(j);
        const float2 f = load_pair(earlier ? theirs.to_state : theirs.carry, token);
        const auto more = load(b, token);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& x = scores.x[2 * kBlockGroups * b + j][i];
          x = combine(x, i / 2, i % 2, more, factor[i / 2] * (i % 2 == 0 ? f.x : f.y));
        }
      }
      return;
    }
    // The remainder is the later one's, the input the earlier one's.
    const float* const exponents = earlier ? own.remainder : own.input;
    const float exponent[2] = {exponents[r[0]], exponents[r[1]]};
    const float cumulative[2] = {own.cumulative[r[0]], own.cumulative[r[1]]};
    const int first[2] = {own.first[r[0]], own.first[r[1]]};
#pragma unroll
    for (int j = 0; j < 2 * kBlockGroups; ++j) {
      const int token = WideAccumulators::column(j);
      const float2 c = load_pair(own.cumulative, token);
      const float2 y = load_pair(earlier ? own.input : own.remainder, token);
      const int2 from = *reinterpret_cast<const int2*>(own.first + token);
      const auto more = load(b, token);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int h = i / 2;
        const bool odd = i % 2 != 0;
        const int t = token + i % 2;
        const float high = odd ? c.y : c.x;
        const float theirs_exponent = odd ? y.y : y.x;
        const float power = earlier ? ((cumulative[h] - high) + exponent[h]) + theirs_exponent
                                    : ((high - cumulative[h]) + theirs_exponent) + exponent[h];
        const bool visible =
            earlier ? t <= r[h] && t >= first[h] : t >= r[h] && r[h] >= (odd ? from.y : from.x);
        float& x = scores.x[2 * kBlockGroups * b + j][i];
        x = combine(x, h, i % 2, more, visible ? exponential(power, __nv_bfloat16()) : 0.0f);
      }
    }
  }

  /// acc += a · B over 16 terms, at columns 16·first …, 16·count of them.
  template <bool rows_are_n, int count, int width>
  static __device__ __forceinline__ void add_factors(WideAccumulators& acc,
                                                     const std::uint32_t (&a)[4],
                                                     const PipeTile<width>& tile, int first,
                                                     int k) {
#pragma unroll
    for (int n = 0; n < count; ++n) {
      std::uint32_t b[4];
      load_factors<rows_are_n>(b, tile, first + n, k);
      acc.add(a, b, first + n);
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
