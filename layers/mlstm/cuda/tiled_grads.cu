// dq or dk for 64 rows × 128 DQK columns a CTA: the saved state's part, then dS·K (dSᵀ·Q) over the
// blocks of the chunk, with dS = (dP·s/N + s·Δ) ⊙ D and dP = dH·Vᵀ.
#include "core/cuda/launch.h"
#include "layers/mlstm/cuda/pipelined.h"
#include "layers/mlstm/cuda/tiled.cuh"
#include "layers/mlstm/cuda/tiled.h"

namespace carousel::mlstm::cuda {
namespace {

using carousel::cuda::grid_size;
using carousel::cuda::launch;
using carousel::cuda::Stream;

constexpr int kWide = 2;  // 64-column tiles of the gradient a CTA

struct Shape {
  int chunk_blocks, row_blocks, slices;
  bool dv_vectors, dqk_vectors, state_vectors;
};

template <class T, bool queries>
struct Grad {
  const Problem& p;
  const Shape& shape;
  const TiledGradArgs<T>& args;
  SharedTile<T>& left;
  SharedTile<T>& right;
  int unit, block, slice;
  Accumulators grad[kWide] = {};

  __device__ std::int64_t block_index(int b) const {
    return static_cast<std::int64_t>(unit) * p.blocks + b;
  }
  __device__ const GateBlock& gates(int b) const { return args.gates[block_index(b)]; }
  __device__ int column() const { return slice * kWide * kTile; }
  __device__ std::int64_t state_index() const {
    const int chunks = (p.blocks + shape.chunk_blocks - 1) / shape.chunk_blocks;
    return static_cast<std::int64_t>(unit) * chunks + block / shape.chunk_blocks;
  }
  __device__ float state_weight(int row) const {
    const ChunkRange range(p, block, shape.chunk_blocks);
    float w = queries ? gates(block).carry[row] : gates(block).to_state[row];
    const int begin = queries ? range.begin : block + 1;
    const int end = queries ? block : range.end;
    for (int b = begin; b < end; ++b) w *= gates(b).decay;
    return w;
  }

  __device__ void add_state() {
    const T* state = args.states + state_index() * p.dqk * p.dv;
    for (int d = 0; d < p.dv; d += kTile) {
      load_tile(left, token_tile(p, args.rows, p.dv, unit, block, d, shape.dv_vectors));
#pragma unroll
      for (int w = 0; w < kWide; ++w) {
        load_tile(right, state_tile(p, state, d, column() + w * kTile, shape.state_vectors));
        __syncthreads();
        multiply<false, false>(grad[w], left, right);
        __syncthreads();
      }
    }
    const GradBlock& g = args.grads[block_index(block)];
    float weights[2], normals[2];  // of the state's product, and of its n
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = Accumulators::row(h);
      const float seen = state_weight(row);
      weights[h] = queries ? seen * g.weight[row] : seen;
      normals[h] = queries ? seen * g.delta[row] : seen;
    }
    const float* n = args.state_n + state_index() * p.dqk;
#pragma unroll
    for (int w = 0; w < kWide; ++w) {
      grad[w].for_each([&](float& x, int j, int h, int e) {
        const int c = column() + w * kTile + Accumulators::column(j) + e;
        x = fmaf(x, weights[h], c < p.dqk ? normals[h] * n[c] : 0.0f);
      });
    }
  }

  __device__ void add_block(int other, float between) {
    Accumulators scores;
    for (int d = 0; d < p.dv; d += kTile) {
      load_tile(left, token_tile(p, args.rows, p.dv, unit, block, d, shape.dv_vectors));
      load_tile(right, token_tile(p, args.columns, p.dv, unit, other, d, shape.dv_vectors));
      __syncthreads();
      multiply<false, true>(scores, left, right);
      __syncthreads();
    }
    const TokenWeights<T> weights{queries ? gates(block) : gates(other),
                                  queries ? gates(other) : gates(block), other == block, between};
    const GradBlock& g = args.grads[block_index(queries ? block : other)];
    scores.for_each([&](float& x, int j, int h, int e) {
      const int row = Accumulators::row(h);
      const int c = Accumulators::column(j) + e;
      const int query = queries ? row : c;
      x = fmaf(x, g.weight[query], g.delta[query]) * (queries ? weights(row, c) : weights(c, row));
    });
#pragma unroll
    for (int w = 0; w < kWide; ++w) {
      load_tile(right, token_tile(p, args.factors, p.dqk, unit, other, column() + w * kTile,
                                  shape.dqk_vectors));
      __syncthreads();
      multiply(grad[w], scores, right);
      __syncthreads();
    }
  }

  /// Σ own·grad over this CTA's columns of the thread's row h, in its four threads.
  __device__ float row_sum(int h) {
    const int token = block * kBlock + Accumulators::row(h);
    float sum = 0.0f;
    if (token < p.time) {
      const T* row = args.own + p.row(unit, token) * p.dqk;
#pragma unroll
      for (int w = 0; w < kWide; ++w) {
        grad[w].for_each([&](float& x, int j, int half, int e) {
          const int c = column() + w * kTile + Accumulators::column(j) + e;
          if (half == h && c < p.dqk) sum = fmaf(to_float(row[c]), x, sum);
        });
      }
    }
    sum += __shfl_xor_sync(kFullWarp, sum, 1);
    return sum + __shfl_xor_sync(kFullWarp, sum, 2);
  }

  __device__ void run() {
    const ChunkRange range(p, block, shape.chunk_blocks);
    float state_sums[2] = {0.0f, 0.0f};
    if (args.states != nullptr) {
      add_state();
      state_sums[0] = row_sum(0);
      state_sums[1] = row_sum(1);
    }
    float between = 1.0f;
    for (int other = block; other >= range.begin && other < range.end && between != 0.0f;
         other += queries ? -1 : 1) {
      add_block(other, between);
      if (other != block) between *= gates(other).decay;
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int token = block * kBlock + Accumulators::row(h);
      const float sum = row_sum(h) - state_sums[h];
      if (threadIdx.x % 4 == 0) {
        const std::int64_t part = static_cast<std::int64_t>(slice) * p.units() + unit;
        args.own_sums[part * p.padded_time() + token] = sum;
        args.state_sums[part * p.padded_time() + token] = state_sums[h];
      }
      if (args.out == nullptr || token >= p.time) continue;
      T* row = args.out + p.row(unit, token) * p.dqk;
#pragma unroll
      for (int w = 0; w < kWide; ++w) {
#pragma unroll
        for (int j = 0; j < kTile / 8; ++j) {
          store_pair(row, column() + w * kTile + Accumulators::column(j), p.dqk,
                     grad[w].x[j][2 * h], grad[w].x[j][2 * h + 1]);
        }
      }
    }
  }
};

template <class T, bool queries>
__global__ void __launch_bounds__(kTileThreads)
    grads_kernel(Problem p, Shape shape, TiledGradArgs<T> args) {
  __shared__ SharedTile<T> left;
  __shared__ SharedTile<T> right;
  const int index = static_cast<int>(blockIdx.x);
  const int slice = index % shape.slices;
  const int block = index / shape.slices % shape.row_blocks;
  const int unit = index / shape.slices / shape.row_blocks;
  Grad<T, queries>{p, shape, args, left, right, unit, block, slice}.run();
}

}  // namespace

int tiled_grad_parts(const Problem& p) { return (p.dqk + kWide * kTile - 1) / (kWide * kTile); }

template <class T>
void launch_tiled_grad(const Stream& stream, const Problem& p, bool queries, int chunk_blocks,
                       const TiledGradArgs<T>& args) {
  if constexpr (sizeof(T) == 2) {
    if (pipeline_takes(stream, p, chunk_blocks,
                       {args.rows, args.columns, args.factors, args.own, args.states, args.state_n},
                       args.out)) {
      return launch_pipelined_grad(stream, p, queries, args);
    }
  }
  const Shape shape{.chunk_blocks = chunk_blocks,
                    .row_blocks = (p.time + kBlock - 1) / kBlock,
                    .slices = tiled_grad_parts(p),
                    .dv_vectors = takes_vectors<T>(p.dv, args.rows, args.columns),
                    .dqk_vectors = takes_vectors<T>(p.dqk, args.factors),
                    .state_vectors = takes_vectors<T>(p.dqk, args.states)};
  const std::int64_t blocks =
      static_cast<std::int64_t>(p.units()) * shape.row_blocks * shape.slices;
  launch(queries ? "mlstm_tiled_dq" : "mlstm_tiled_dk", stream,
         {.grid = dim3(grid_size(blocks, 1)), .block = kTileThreads},
         queries ? grads_kernel<T, true> : grads_kernel<T, false>, p, shape, args);
}
template void launch_tiled_grad(const Stream&, const Problem&, bool, int,
                                const TiledGradArgs<float>&);
template void launch_tiled_grad(const Stream&, const Problem&, bool, int,
                                const TiledGradArgs<__nv_bfloat16>&);

}  // namespace carousel::mlstm::cuda
