// h, or mirrored in time dv, for a chunk's 128 rows × 128 DV columns a CTA: q times the state
// before and, step by step beside it, times the chunk's keys; then the weighted scores times v.
#include "layers/mlstm/cuda/pipelined.cuh"

namespace carousel::mlstm::cuda {
namespace {

using carousel::cuda::launch;
using carousel::cuda::Stream;
using bf16 = __nv_bfloat16;

// The tiles of one step's stage.
struct Step {
  PipeTile<kStep> rows, columns, state, rest;
  float* n;  // of the step's columns

  __device__ explicit Step(std::byte* at)
      : rows(at),
        columns(at + kStepTileBytes),
        state(at + 2 * kStepTileBytes),
        rest(at + 3 * kStepTileBytes),
        n(reinterpret_cast<float*>(at + 4 * kStepTileBytes)) {}
};
static_assert(4 * kStepTileBytes + kStep * static_cast<int>(sizeof(float)) <= kStageBytes);

__device__ void copy_normal(const Step& to, const float* n, int columns) {
  constexpr int kSize = Vector<float>::kSize;
  const int at = static_cast<int>(threadIdx.x) * kSize;
  if (at >= kStep) return;
  const bool valid = at < columns;
  copy_vector(to.n + at, valid ? n + at : n, valid);
}

// q·n of the row thread / 2, this thread's half of a step's columns.
__device__ float add_normal(float sum, const Step& from) {
  const int row = static_cast<int>(threadIdx.x) / 2;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int vector = static_cast<int>(threadIdx.x) % 2 * 2 + i;
    const auto q = *reinterpret_cast<const Vector<bf16>*>(from.rows.at(row, vector));
#pragma unroll
    for (int e = 0; e < Vector<bf16>::kSize; ++e) {
      sum = fmaf(to_float(q.x[e]), from.n[vector * Vector<bf16>::kSize + e], sum);
    }
  }
  return sum;
}

// Divides the rows by the normaliser.
__device__ void normalise(const Problem& p, const TiledOutArgs<bf16>& args, const ChunkPlace& at,
                          const GateBlock* g, ChunkRows<true>& mine, float (&row_sums)[2],
                          float normal) {
  __shared__ float normals[kSide];
  normal += __shfl_xor_sync(kFullWarp, normal, 1);
  if (threadIdx.x % 2 == 0) normals[threadIdx.x / 2] = normal;
  __syncthreads();
  float factors[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    row_sums[h] += __shfl_xor_sync(kFullWarp, row_sums[h], 1);
    row_sums[h] += __shfl_xor_sync(kFullWarp, row_sums[h], 2);
    const int row = mine.row(h) % kBlock;
    const float carried = state_weight<true>(g, mine.block(), row) * normals[mine.row(h)];
    const Normaliser normaliser{p.scale * (row_sums[h] + carried), g[mine.block()].bound[row],
                                args.eps};
    factors[h] = p.scale / normaliser.value();
    const int token = at.chunk * kChunk + mine.row(h);
    if (at.slice == 0 && threadIdx.x % 4 == 0 && args.normaliser != nullptr && token < p.time) {
      args.normaliser[p.row(at.unit, token)] = normaliser.value();
      args.sign[p.row(at.unit, token)] = normaliser.sign();
    }
  }
  mine.out.for_each([&](float& x, int, int h, int) { x *= factors[h]; });
}

template <bool forward>
__global__ void __launch_bounds__(kPipeThreads, 1)
    pipelined_out_kernel(Problem p, int slices, TiledOutArgs<bf16> args) {
  extern __shared__ __align__(128) std::byte stages[];
  const ChunkPlace at(p, slices);
  const GateBlock* const g = args.gates + at.block_index(p, 0);
  const GradBlock* const d = forward ? nullptr : args.grads + at.block_index(p, 0);
  const std::int64_t state = at.state_index(p) * p.dqk * p.dv;
  const float* const n = args.state_n + at.state_index(p) * p.dqk;
  const int products = (p.dqk + kStep - 1) / kStep;
  ChunkRows<forward> mine;
  float normal = 0.0f;

  std::byte* const last = pipeline(
      stages, products + 1,
      [&](int s, std::byte* stage) {
        if (s == products) {
          copy_tile<kSide>(PipeTile<kSide>(stage), at.tokens(p, args.values, p.dv, at.left()));
          return;
        }
        const Step to(stage);
        const int column = s * kStep;
        copy_tile<kSide>(to.rows, at.tokens(p, args.rows, p.dqk, column));
        copy_tile<kSide>(to.columns, at.tokens(p, args.columns, p.dqk, column));
        copy_tile<kSide>(to.state, state_tile(p, args.states + state, at.left(), column, true));
        copy_tile<kSide>(to.rest, state_tile(p, args.rests + state, at.left(), column, true));
        if (forward) copy_normal(to, n + column, p.dqk - column);
      },
      [&](int s, std::byte* stage) {
        if (s == products) return;
        const Step from(stage);
        mine.template add_step<true>(from.rows, from.columns, from.state, from.rest);
        if (forward) normal = add_normal(normal, from);
      });

  const int block = mine.block();
  const float carried[2] = {state_weight<forward>(g, block, mine.row(0) % kBlock),
                            state_weight<forward>(g, block, mine.row(1) % kBlock)};
  mine.out.for_each([&](float& x, int, int h, int) { x *= carried[h]; });
  float row_sums[2] = {0.0f, 0.0f};
  mine.weigh(
      g,
      [&](int other, int token) {
        return forward ? float2{1.0f, 1.0f} : load_pair(d[other].weight, token);
      },
      [&](float score, int h, int e, float2 weight, float w) {
        score *= forward ? w : w * (e == 0 ? weight.x : weight.y);
        row_sums[h] += score;
        return score;
      });
  mine.add_values(PipeTile<kSide>(last));
  if constexpr (forward) normalise(p, args, at, g, mine, row_sums, normal);
  const int first = at.chunk * kChunk;
  mine.store([&](int row) { return args.out + p.row(at.unit, first + row) * p.dv; }, at.left(),
             p.dv, p.time - first);
}

}  // namespace

void launch_pipelined_out(const Stream& stream, const Problem& p, bool forward,
                          const TiledOutArgs<bf16>& args) {
  const int slices = (p.dv + kSide - 1) / kSide;
  launch(forward ? "mlstm_pipelined_out_fwd" : "mlstm_pipelined_out_bwd", stream,
         chunk_launch(p, slices),
         forward ? pipelined_out_kernel<true> : pipelined_out_kernel<false>, p, slices, args);
}

}  // namespace carousel::mlstm::cuda
