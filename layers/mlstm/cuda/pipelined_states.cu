// States at chunk borders, 64 × 128 elements a CTA: State = decay·State + (values ⊙ update)ᵀ ·
// columns, one block of tokens after the other.
#include <algorithm>

#include "core/cuda/dispatch.h"
#include "core/cuda/launch.h"
#include "layers/mlstm/cuda/choice.h"
#include "layers/mlstm/cuda/pipelined.cuh"

namespace carousel::mlstm::cuda {
namespace {

using carousel::cuda::grid_size;
using carousel::cuda::launch;
using carousel::cuda::Stream;
using bf16 = __nv_bfloat16;

// Small enough that several CTAs a multiprocessor share the work evenly.
constexpr int kThreads = kSide;  // one a column of n
constexpr int kTop = 64;         // rows of the state, in DV
constexpr int kValueBytes = kBlock * kTop * static_cast<int>(sizeof(bf16));
constexpr int kColumnBytes = kBlock * kSide * static_cast<int>(sizeof(bf16));
constexpr int kFactorBytes = 3 * kBlock * static_cast<int>(sizeof(float));
constexpr int kStateStage = kValueBytes + kColumnBytes + kFactorBytes;

// A block's tiles and factors, in one stage.
struct Step {
  PipeTile<kTop> values;    // [token][column]
  PipeTile<kSide> columns;  // the same
  float* factors[3];        // of each token: carry; to_state or weight; delta

  __device__ explicit Step(std::byte* at) : values(at), columns(at + kValueBytes) {
    float* const after = reinterpret_cast<float*>(at + kValueBytes + kColumnBytes);
#pragma unroll
    for (int i = 0; i < 3; ++i) factors[i] = after + i * kBlock;
  }
  __device__ float decay() const { return factors[0][kBlock - 1]; }
};
static_assert(kStateStage <= kStageBytes);

// Two neighbouring numbers, each times its own weight.
__device__ __forceinline__ std::uint32_t weighted(std::uint32_t pair, float2 weight) {
  return detail::pack_bf16(weight.x * __uint_as_float(pair << 16),
                           weight.y * __uint_as_float(pair & 0xffff0000u));
}

template <bool forward>
struct States {
  static constexpr int kRows = 2, kColumns = 8;  // of 16 and of 8, a warp
  const Problem& p;
  const TiledStateArgs<bf16>& args;
  int unit, top, left;      // where this CTA's part of the state begins, in DV and DQK
  int warp, row0, column0;  // and this thread's first elements in it
  float state[kRows][kColumns][4] = {};
  float n = 0.0f;  // of the column threadIdx.x

  __device__ States(const Problem& problem, const TiledStateArgs<bf16>& a, int dv_tiles,
                    int dqk_tiles)
      : p(problem), args(a) {
    const int tile = static_cast<int>(blockIdx.x) % (dv_tiles * dqk_tiles);
    unit = static_cast<int>(blockIdx.x) / (dv_tiles * dqk_tiles);
    top = tile / dqk_tiles * kTop;
    left = tile % dqk_tiles * kSide;
    warp = warp_index();
    const int lane = static_cast<int>(threadIdx.x) % 32;
    row0 = warp % 2 * 32 + lane / 4;
    column0 = warp_column() + 2 * (lane % 4);
  }

  /// f(element, row, column) of all that lie within the state.
  template <class F>
  __device__ void for_each(F&& f) {
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = top + row0 + 16 * m + 8 * (i / 2);
          const int column = left + column0 + 8 * j + i % 2;
          if (row < p.dv && column < p.dqk) f(state[m][j][i], row, column);
        }
      }
    }
  }
  __device__ int warp_column() const { return warp / 2 * 8 * kColumns; }
  __device__ std::int64_t natural(int row, int column) const {
    return (static_cast<std::int64_t>(unit) * p.dqk + column) * p.dv + row;
  }
  __device__ int n_column() const { return left + static_cast<int>(threadIdx.x); }
  /// The CTAs of DV tile 0 keep n, one column a thread.
  __device__ bool keeps_n() const { return top == 0 && n_column() < p.dqk; }
  __device__ std::int64_t n_index(std::int64_t of) const { return of * p.dqk + n_column(); }

  // What rounding leaves goes to the rests.
  __device__ void save(int chunk) {
    const std::int64_t index = static_cast<std::int64_t>(unit) * p.chunks() + chunk;
    const std::int64_t first = index * p.dqk * p.dv;
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = top + row0 + 16 * m + 8 * h;
        const int column = left + warp_column();
        const std::int64_t at = first + static_cast<std::int64_t>(row) * p.dqk + column;
        const auto rounded = [&](int j) {
          return detail::pack_bf16(state[m][j][2 * h], state[m][j][2 * h + 1]);
        };
        store_row<kColumns>(args.states + at, p.dqk - column, row < p.dv, rounded);
        if (args.rests == nullptr) continue;
        store_row<kColumns>(args.rests + at, p.dqk - column, row < p.dv, [&](int j) {
          const std::uint32_t pair = rounded(j);
          return detail::pack_bf16(state[m][j][2 * h] - __uint_as_float(pair << 16),
                                   state[m][j][2 * h + 1] - __uint_as_float(pair & 0xffff0000u));
        });
      }
    }
    if (keeps_n()) args.state_n[n_index(index)] = n;
  }

  __device__ void load(int block, std::byte* stage) const {
    const Step to(stage);
    copy_tile<kBlock, kThreads>(to.values,
                                token_tile(p, args.values, p.dv, unit, block, top, true));
    copy_tile<kBlock, kThreads>(to.columns,
                                token_tile(p, args.columns, p.dqk, unit, block, left, true));
    const std::int64_t index = static_cast<std::int64_t>(unit) * p.blocks + block;
    const GateBlock& g = args.gates[index];
    const auto copy_factors = [&](int i, const float* from) {
      constexpr int kSize = Vector<float>::kSize;
      const int at = (static_cast<int>(threadIdx.x) - i * (kBlock / kSize)) * kSize;
      if (at >= 0 && at < kBlock) copy_vector(to.factors[i] + at, from + at, true);
    };
    copy_factors(0, g.carry);
    copy_factors(1, forward ? g.to_state : args.grads[index].weight);
    if (!forward) copy_factors(2, args.grads[index].delta);
  }

  __device__ void add(const Step& from) {
    const float decay = from.decay();
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) state[m][j][i] *= decay;
      }
    }
#pragma unroll
    for (int k = 0; k < kBlock / 16; ++k) {
      const auto weight = [&](int token) {
        const float2 w = load_pair(from.factors[1], token);
        if (forward) return w;
        const float2 seen = load_pair(from.factors[0], token);
        return float2{w.x * seen.x, w.y * seen.y};
      };
      const float2 low = weight(16 * k + 2 * (lane % 4));
      const float2 high = weight(16 * k + 2 * (lane % 4) + 8);
      std::uint32_t a[kRows][4];
#pragma unroll
      for (int m = 0; m < kRows; ++m) {
        detail::load_matrices<true>(a[m], from.values.at(16 * k + lane / 16 * 8 + lane % 8,
                                                         warp % 2 * 4 + 2 * m + lane / 8 % 2));
        a[m][0] = weighted(a[m][0], low);
        a[m][1] = weighted(a[m][1], low);
        a[m][2] = weighted(a[m][2], high);
        a[m][3] = weighted(a[m][3], high);
      }
#pragma unroll
      for (int j = 0; j < kColumns / 2; ++j) {
        std::uint32_t b[4];
        load_factors<false>(b, from.columns, warp / 2 * 4 + j, k);
#pragma unroll
        for (int m = 0; m < kRows; ++m) {
          detail::mma_bf16(state[m][2 * j], a[m], b[0], b[1]);
          detail::mma_bf16(state[m][2 * j + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  __device__ void advance_n(const Step& from) {
    constexpr int kSize = Vector<bf16>::kSize;
    const int column = static_cast<int>(threadIdx.x);
    n *= from.decay();
#pragma unroll 8
    for (int t = 0; t < kBlock; ++t) {
      const float w = forward ? from.factors[1][t] : from.factors[0][t] * from.factors[2][t];
      n = fmaf(w, to_float(from.columns.at(t, column / kSize)[column % kSize]), n);
    }
  }

  __device__ void run(std::byte* stages) {
    if (args.c_first != nullptr) {
      for_each([&](float& x, int row, int column) { x = args.c_first[natural(row, column)]; });
    }
    if (keeps_n() && args.n_first != nullptr) n = args.n_first[n_index(unit)];
    const auto block_at = [&](int step) { return forward ? step : p.blocks - 1 - step; };
    pipeline<kStateStage>(
        stages, p.blocks, [&](int step, std::byte* stage) { load(block_at(step), stage); },
        [&](int step, std::byte* stage) {
          const int block = block_at(step);
          if (step % kChunkBlocks == 0 && args.states != nullptr) save(block / kChunkBlocks);
          const Step from(stage);
          add(from);
          if (keeps_n()) advance_n(from);
        });
    if (args.c_last != nullptr) {
      for_each([&](float& x, int row, int column) { args.c_last[natural(row, column)] = x; });
    }
    if (keeps_n() && args.n_last != nullptr) args.n_last[n_index(unit)] = n;
  }
};

template <bool forward>
__global__ void __launch_bounds__(kThreads, 3)
    pipelined_states_kernel(Problem p, int dv_tiles, int dqk_tiles, TiledStateArgs<bf16> args) {
  extern __shared__ __align__(128) std::byte stages[];
  States<forward>(p, args, dv_tiles, dqk_tiles).run(stages);
}

}  // namespace

bool pipeline_takes(const Stream& stream, const Problem& p, int chunk_blocks,
                    std::initializer_list<const void*> needed, const void* optional) {
  constexpr std::size_t kStatic = kSide * sizeof(float);  // pipelined_out_kernel's
  constexpr int kSize = Vector<bf16>::kSize;
  if (most_special.load() < Kernels::kPipelined) return false;
  if (chunk_blocks != kChunkBlocks || p.dqk % kSize != 0 || p.dv % kSize != 0) return false;
  if (std::max(p.dqk, p.dv) > kMostStride / p.heads) return false;
  if (stream.info().shared_per_block < kPipeSharedBytes + kStatic) return false;
  for (const void* address : needed) {
    if (address == nullptr || !carousel::cuda::aligned16(address)) return false;
  }
  return carousel::cuda::aligned16(optional);
}

void launch_pipelined_states(const Stream& stream, const Problem& p, bool forward,
                             const TiledStateArgs<bf16>& args) {
  const int dv_tiles = (p.dv + kTop - 1) / kTop;
  const int dqk_tiles = (p.dqk + kSide - 1) / kSide;
  launch(forward ? "mlstm_pipelined_states_fwd" : "mlstm_pipelined_states_bwd", stream,
         {.grid = dim3(grid_size(static_cast<std::int64_t>(p.units()) * dv_tiles * dqk_tiles, 1)),
          .block = kThreads,
          .shared_bytes = std::size_t{kPipeStages} * kStateStage},
         forward ? pipelined_states_kernel<true> : pipelined_states_kernel<false>, p, dv_tiles,
         dqk_tiles, args);
}

}  // namespace carousel::mlstm::cuda
