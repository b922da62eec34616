// States at chunk borders, 64 × 64 elements a CTA: State = decay·State + (values ⊙ update)ᵀ ·
// columns, one block of tokens after the other.
#include "core/cuda/launch.h"
#include "layers/mlstm/cuda/pipelined.h"
#include "layers/mlstm/cuda/tiled.cuh"
#include "layers/mlstm/cuda/tiled.h"

namespace carousel::mlstm::cuda {
namespace {

using carousel::cuda::grid_size;
using carousel::cuda::launch;
using carousel::cuda::Stream;

struct Shape {
  int chunk_blocks, dv_tiles, dqk_tiles;
  bool dv_vectors, dqk_vectors;
};

// One column of n a thread, kept by the CTAs of DV tile 0.
template <bool forward, class T>
__device__ float advance_n(float n, const SharedTile<T>& columns, const GateBlock& g,
                           const GradBlock* d, int column) {
  n *= g.decay;
  for (int t = 0; t < kBlock; ++t) {
    const float w = forward ? g.to_state[t] : g.carry[t] * d->delta[t];
    n = fmaf(w, to_float(columns.row(t)[column]), n);
  }
  return n;
}

template <class T, bool forward>
__global__ void __launch_bounds__(kTileThreads)
    states_kernel(Problem p, Shape shape, TiledStateArgs<T> args) {
  __shared__ SharedTile<T> values;
  __shared__ SharedTile<T> columns;
  const int tiles = shape.dv_tiles * shape.dqk_tiles;
  const int unit = static_cast<int>(blockIdx.x) / tiles;
  const int top = static_cast<int>(blockIdx.x) % tiles / shape.dqk_tiles * kTile;   // in DV
  const int left = static_cast<int>(blockIdx.x) % tiles % shape.dqk_tiles * kTile;  // in DQK
  const std::int64_t size = static_cast<std::int64_t>(p.dqk) * p.dv;
  const int chunks = (p.blocks + shape.chunk_blocks - 1) / shape.chunk_blocks;
  const int n_column = static_cast<int>(threadIdx.x);
  const bool keeps_n = top == 0 && n_column < kTile && left + n_column < p.dqk;

  Accumulators state;
  const auto natural = [&](int j, int h, int e) {  // index in (DQK, DV), −1 outside
    const int row = top + Accumulators::row(h);
    const int column = left + Accumulators::column(j) + e;
    return row < p.dv && column < p.dqk ? static_cast<std::int64_t>(column) * p.dv + row : -1;
  };
  if (args.c_first != nullptr) {
    state.for_each([&](float& x, int j, int h, int e) {
      const std::int64_t at = natural(j, h, e);
      if (at >= 0) x = args.c_first[unit * size + at];
    });
  }
  float n = keeps_n && args.n_first != nullptr
                ? args.n_first[static_cast<std::int64_t>(unit) * p.dqk + left + n_column]
                : 0.0f;

  const auto store = [&](T* to, auto&& part) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = top + Accumulators::row(h);
      if (row >= p.dv) continue;
#pragma unroll
      for (int j = 0; j < kTile / 8; ++j) {
        store_pair(to + static_cast<std::int64_t>(row) * p.dqk, left + Accumulators::column(j),
                   p.dqk, part(state.x[j][2 * h]), part(state.x[j][2 * h + 1]));
      }
    }
  };

  for (int step = 0; step < p.blocks; ++step) {
    const int block = forward ? step : p.blocks - 1 - step;
    const bool enters_chunk = forward ? block % shape.chunk_blocks == 0
                                      : (block + 1) % shape.chunk_blocks == 0 || step == 0;
    if (enters_chunk && args.states != nullptr) {
      const std::int64_t index =
          static_cast<std::int64_t>(unit) * chunks + block / shape.chunk_blocks;
      store(args.states + index * size, [](float x) { return x; });
      if constexpr (sizeof(T) == 2) {
        if (args.rests != nullptr) {
          store(args.rests + index * size, [](float x) { return x - to_float(from_float<T>(x)); });
        }
      }
      if (keeps_n) args.state_n[index * p.dqk + left + n_column] = n;
    }
    const GateBlock& g = args.gates[static_cast<std::int64_t>(unit) * p.blocks + block];
    const GradBlock* d =
        forward ? nullptr : &args.grads[static_cast<std::int64_t>(unit) * p.blocks + block];
    load_tile(values, token_tile(p, args.values, p.dv, unit, block, top, shape.dv_vectors),
              [&](int t) { return forward ? g.to_state[t] : g.carry[t] * d->weight[t]; });
    load_tile(columns, token_tile(p, args.columns, p.dqk, unit, block, left, shape.dqk_vectors));
    __syncthreads();
    state.scale_rows(g.decay, g.decay);
    multiply<true, false>(state, values, columns);
    if (keeps_n) n = advance_n<forward>(n, columns, g, d, n_column);
    __syncthreads();
  }
  if (args.c_last != nullptr) {
    state.for_each([&](float& x, int j, int h, int e) {
      const std::int64_t at = natural(j, h, e);
      if (at >= 0) args.c_last[unit * size + at] = x;
    });
  }
  if (keeps_n && args.n_last != nullptr) {
    args.n_last[static_cast<std::int64_t>(unit) * p.dqk + left + n_column] = n;
  }
}

}  // namespace

template <class T>
void launch_tiled_states(const Stream& stream, const Problem& p, bool forward, int chunk_blocks,
                         const TiledStateArgs<T>& args) {
  if constexpr (sizeof(T) == 2) {
    if (pipeline_takes(stream, p, chunk_blocks, {args.columns, args.values, args.states},
                       args.rests)) {
      return launch_pipelined_states(stream, p, forward, args);
    }
  }
  const Shape shape{.chunk_blocks = chunk_blocks,
                    .dv_tiles = (p.dv + kTile - 1) / kTile,
                    .dqk_tiles = (p.dqk + kTile - 1) / kTile,
                    .dv_vectors = takes_vectors<T>(p.dv, args.values),
                    .dqk_vectors = takes_vectors<T>(p.dqk, args.columns)};
  const std::int64_t blocks =
      static_cast<std::int64_t>(p.units()) * shape.dv_tiles * shape.dqk_tiles;
  launch(forward ? "mlstm_tiled_states_fwd" : "mlstm_tiled_states_bwd", stream,
         {.grid = dim3(grid_size(blocks, 1)), .block = kTileThreads},
         forward ? states_kernel<T, true> : states_kernel<T, false>, p, shape, args);
}
template void launch_tiled_states(const Stream&, const Problem&, bool, int,
                                  const TiledStateArgs<float>&);
template void launch_tiled_states(const Stream&, const Problem&, bool, int,
                                  const TiledStateArgs<__nv_bfloat16>&);

}  // namespace carousel::mlstm::cuda
