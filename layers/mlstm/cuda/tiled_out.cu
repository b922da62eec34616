// h, or mirrored in time dv, for 64 rows × 128 DV columns a CTA: the saved state's part, then the
// blocks of the chunk from the row's own outwards. As the stabilisers are known, no running maximum
// is needed.
#include "core/cuda/launch.h"
#include "layers/mlstm/cuda/pipelined.h"
#include "layers/mlstm/cuda/tiled.cuh"
#include "layers/mlstm/cuda/tiled.h"

namespace carousel::mlstm::cuda {
namespace {

using carousel::cuda::grid_size;
using carousel::cuda::launch;
using carousel::cuda::Stream;

constexpr int kWide = 2;  // 64-column tiles of the output a CTA

struct Shape {
  int chunk_blocks, row_blocks, slices;
  bool dv_vectors, dqk_vectors, state_vectors;
};

template <class T, bool forward>
struct Out {
  const Problem& p;
  const Shape& shape;
  const TiledOutArgs<T>& args;
  SharedTile<T>& left;
  SharedTile<T>& right;
  int unit, block, slice;
  Accumulators out[kWide] = {};
  float row_sums[2] = {0.0f, 0.0f};  // of the scores, this thread's columns
  float normal = 0.0f;               // q·n of row thread / 2, this thread's half

  __device__ const GateBlock& gates(int b) const {
    return args.gates[static_cast<std::int64_t>(unit) * p.blocks + b];
  }
  __device__ int column() const { return slice * kWide * kTile; }
  /// What a row sees of the state: its carry (forward) or to_state, times the decay up to the
  /// chunk's border.
  __device__ float state_weight(int row) const {
    const ChunkRange range(p, block, shape.chunk_blocks);
    float w = forward ? gates(block).carry[row] : gates(block).to_state[row];
    const int begin = forward ? range.begin : block + 1;
    const int end = forward ? block : range.end;
    for (int b = begin; b < end; ++b) w *= gates(b).decay;
    return w;
  }

  // Adds left · partᵀ, of columns d … d + 63 of a state or of its rest.
  __device__ void add_part(const T* part, int d) {
#pragma unroll
    for (int w = 0; w < kWide; ++w) {
      load_tile(right, state_tile(p, part, column() + w * kTile, d, shape.state_vectors));
      __syncthreads();
      multiply<false, true>(out[w], left, right);
      __syncthreads();
    }
  }

  /// In bf16 the state comes in two parts: where q·k cancels, its rounding does not, and the
  /// division by a small denominator magnifies that without limit. Backward the same row outweighs
  /// all others in the state.
  __device__ void add_state() {
    const int chunks = (p.blocks + shape.chunk_blocks - 1) / shape.chunk_blocks;
    const std::int64_t index =
        static_cast<std::int64_t>(unit) * chunks + block / shape.chunk_blocks;
    const std::int64_t first = index * p.dqk * p.dv;
    const float* n = args.state_n + index * p.dqk;
    for (int d = 0; d < p.dqk; d += kTile) {
      load_tile(left, token_tile(p, args.rows, p.dqk, unit, block, d, shape.dqk_vectors));
      add_part(args.states + first, d);
      if constexpr (sizeof(T) == 2) {
        if (args.rests != nullptr) add_part(args.rests + first, d);
      }
      if constexpr (forward) {
        const int half = static_cast<int>(threadIdx.x) % 2 * (kTile / 2);
        const T* q = left.row(static_cast<int>(threadIdx.x) / 2) + half;
        for (int e = 0; e < kTile / 2 && d + half + e < p.dqk; ++e) {
          normal = fmaf(to_float(q[e]), n[d + half + e], normal);
        }
        __syncthreads();
      }
    }
    const float weights[2] = {state_weight(Accumulators::row(0)),
                              state_weight(Accumulators::row(1))};
#pragma unroll
    for (int w = 0; w < kWide; ++w) out[w].scale_rows(weights[0], weights[1]);
  }

  __device__ void add_block(int other, float between) {
    Accumulators scores;
    for (int d = 0; d < p.dqk; d += kTile) {
      load_tile(left, token_tile(p, args.rows, p.dqk, unit, block, d, shape.dqk_vectors));
      load_tile(right, token_tile(p, args.columns, p.dqk, unit, other, d, shape.dqk_vectors));
      __syncthreads();
      multiply<false, true>(scores, left, right);
      __syncthreads();
    }
    const TokenWeights<T> weights{forward ? gates(block) : gates(other),
                                  forward ? gates(other) : gates(block), other == block, between};
    const GradBlock* d =
        forward ? nullptr : &args.grads[static_cast<std::int64_t>(unit) * p.blocks + other];
    scores.for_each([&](float& x, int j, int h, int e) {
      const int row = Accumulators::row(h);
      const int c = Accumulators::column(j) + e;
      x *= forward ? weights(row, c) : weights(c, row) * d->weight[c];
      row_sums[h] += x;
    });
#pragma unroll
    for (int w = 0; w < kWide; ++w) {
      load_tile(right, token_tile(p, args.values, p.dv, unit, other, column() + w * kTile,
                                  shape.dv_vectors));
      __syncthreads();
      multiply(out[w], scores, right);
      __syncthreads();
    }
  }

  /// Forward: divides by the normaliser.
  __device__ void normalise() {
    normal += __shfl_xor_sync(kFullWarp, normal, 1);
    __shared__ float normals[kTile];
    if (threadIdx.x % 2 == 0) normals[threadIdx.x / 2] = normal;
    __syncthreads();
    float factors[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      row_sums[h] += __shfl_xor_sync(kFullWarp, row_sums[h], 1);
      row_sums[h] += __shfl_xor_sync(kFullWarp, row_sums[h], 2);
      const int row = Accumulators::row(h);
      const float carried = args.states == nullptr ? 0.0f : state_weight(row) * normals[row];
      const Normaliser normaliser{p.scale * (row_sums[h] + carried), gates(block).bound[row],
                                  args.eps};
      factors[h] = p.scale / normaliser.value();
      const int token = block * kBlock + row;
      if (slice == 0 && threadIdx.x % 4 == 0 && args.normaliser != nullptr && token < p.time) {
        args.normaliser[p.row(unit, token)] = normaliser.value();
        args.sign[p.row(unit, token)] = normaliser.sign();
      }
    }
#pragma unroll
    for (int w = 0; w < kWide; ++w) out[w].scale_rows(factors[0], factors[1]);
  }

  __device__ void run() {
    const ChunkRange range(p, block, shape.chunk_blocks);
    if (args.states != nullptr) add_state();
    float between = 1.0f;
    for (int other = block; other >= range.begin && other < range.end && between != 0.0f;
         other += forward ? -1 : 1) {
      add_block(other, between);
      if (other != block) between *= gates(other).decay;
    }
    if constexpr (forward) normalise();
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int token = block * kBlock + Accumulators::row(h);
      if (token >= p.time) continue;
      T* row = args.out + p.row(unit, token) * p.dv;
#pragma unroll
      for (int w = 0; w < kWide; ++w) {
#pragma unroll
        for (int j = 0; j < kTile / 8; ++j) {
          store_pair(row, column() + w * kTile + Accumulators::column(j), p.dv, out[w].x[j][2 * h],
                     out[w].x[j][2 * h + 1]);
        }
      }
    }
  }
};

template <class T, bool forward>
__global__ void __launch_bounds__(kTileThreads)
    out_kernel(Problem p, Shape shape, TiledOutArgs<T> args) {
  __shared__ SharedTile<T> left;
  __shared__ SharedTile<T> right;
  const int index = static_cast<int>(blockIdx.x);
  const int slice = index % shape.slices;
  const int block = index / shape.slices % shape.row_blocks;
  const int unit = index / shape.slices / shape.row_blocks;
  Out<T, forward>{p, shape, args, left, right, unit, block, slice}.run();
}

}  // namespace

template <class T>
void launch_tiled_out(const Stream& stream, const Problem& p, bool forward, int chunk_blocks,
                      const TiledOutArgs<T>& args) {
  if constexpr (sizeof(T) == 2) {
    if (pipeline_takes(stream, p, chunk_blocks,
                       {args.rows, args.columns, args.values, args.states, args.rests, args.state_n,
                        args.out})) {
      return launch_pipelined_out(stream, p, forward, args);
    }
  }
  const Shape shape{.chunk_blocks = chunk_blocks,
                    .row_blocks = (p.time + kBlock - 1) / kBlock,
                    .slices = (p.dv + kWide * kTile - 1) / (kWide * kTile),
                    .dv_vectors = takes_vectors<T>(p.dv, args.values),
                    .dqk_vectors = takes_vectors<T>(p.dqk, args.rows, args.columns),
                    .state_vectors = takes_vectors<T>(p.dqk, args.states, args.rests)};
  const std::int64_t blocks =
      static_cast<std::int64_t>(p.units()) * shape.row_blocks * shape.slices;
  launch(forward ? "mlstm_tiled_out_fwd" : "mlstm_tiled_out_bwd", stream,
         {.grid = dim3(grid_size(blocks, 1)), .block = kTileThreads},
         forward ? out_kernel<T, true> : out_kernel<T, false>, p, shape, args);
}
template void launch_tiled_out(const Stream&, const Problem&, bool, int,
                               const TiledOutArgs<float>&);
template void launch_tiled_out(const Stream&, const Problem&, bool, int,
                               const TiledOutArgs<__nv_bfloat16>&);

}  // namespace carousel::mlstm::cuda
