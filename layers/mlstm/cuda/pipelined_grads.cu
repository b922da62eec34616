// dq or dk for a chunk's 128 rows × 128 DQK columns a CTA: dh times the state before and, step by
// step beside it, times the chunk's v; then dS·K (dSᵀ·Q) with dS = (dP·s/N + s·Δ) ⊙ D and dP =
// dH·Vᵀ.
#include "layers/mlstm/cuda/pipelined.cuh"

namespace carousel::mlstm::cuda {
namespace {

using carousel::cuda::launch;
using carousel::cuda::Stream;
using bf16 = __nv_bfloat16;

struct Step {
  PipeTile<kStep> rows, columns;
  PipeTile<kSide> state;  // [DV][DQK]

  __device__ explicit Step(std::byte* at)
      : rows(at), columns(at + kStepTileBytes), state(at + 2 * kStepTileBytes) {}
};

template <bool queries>
struct Grads {
  const Problem& p;
  const TiledGradArgs<bf16>& args;
  const ChunkPlace at;
  const GateBlock* const g;
  const GradBlock* const d;
  ChunkRows<queries> mine;

  __device__ Grads(const Problem& problem, const TiledGradArgs<bf16>& a, int slices)
      : p(problem),
        args(a),
        at(problem, slices),
        g(a.gates + at.block_index(problem, 0)),
        d(a.grads + at.block_index(problem, 0)) {}

  // From rows · state to what comes of it: times what each row sees of it, and n's part.
  __device__ void weigh_state() {
    float weights[2], normals[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = mine.row(h) % kBlock;
      const float seen = state_weight<queries>(g, mine.block(), row);
      weights[h] = queries ? seen * d[mine.block()].weight[row] : seen;
      normals[h] = queries ? seen * d[mine.block()].delta[row] : seen;
    }
    const float* const n = args.state_n + at.state_index(p) * p.dqk;
#pragma unroll
    for (int j = 0; j < kSide / 8; ++j) {
      const int c = at.left() + WideAccumulators::column(j);
      const float2 pair = load_pair(n, c < p.dqk ? c : 0);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float of_column = c >= p.dqk ? 0.0f : i % 2 == 0 ? pair.x : pair.y;
        float& x = mine.out.x[j][i];
        x = fmaf(x, weights[i / 2], normals[i / 2] * of_column);
      }
    }
  }

  /// This CTA's columns of the thread's rows of q, or k: pairs of bf16, zero where there are none.
  /// All are loaded at once, and used twice.
  struct Own {
    std::uint32_t pairs[2][kSide / 8];
  };
  __device__ Own load_own() const {
    Own own;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int token = at.chunk * kChunk + mine.row(h);
      const bool exists = token < p.time;
      const bf16* const row = args.own + p.row(at.unit, exists ? token : 0) * p.dqk;
#pragma unroll
      for (int j = 0; j < kSide / 8; ++j) {
        const int c = at.left() + WideAccumulators::column(j);
        const bool valid = exists && c < p.dqk;
        const auto pair = *reinterpret_cast<const std::uint32_t*>(row + (valid ? c : 0));
        own.pairs[h][j] = valid ? pair : 0;
      }
    }
    return own;
  }

  /// Σ own·grad over this CTA's columns of the thread's row h, in its four threads.
  __device__ float row_sum(const Own& own, int h) const {
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < kSide / 8; ++j) {
      const std::uint32_t pair = own.pairs[h][j];
      sum = fmaf(__uint_as_float(pair << 16), mine.out.x[j][2 * h], sum);
      sum = fmaf(__uint_as_float(pair & 0xffff0000u), mine.out.x[j][2 * h + 1], sum);
    }
    sum += __shfl_xor_sync(kFullWarp, sum, 1);
    return sum + __shfl_xor_sync(kFullWarp, sum, 2);
  }

  __device__ void run(std::byte* stages) {
    const bf16* const state = args.states + at.state_index(p) * p.dqk * p.dv;
    const int products = (p.dv + kStep - 1) / kStep;
    std::byte* const last = pipeline(
        stages, products + 1,
        [&](int s, std::byte* stage) {
          if (s == products) {
            copy_tile<kSide>(PipeTile<kSide>(stage), at.tokens(p, args.factors, p.dqk, at.left()));
            return;
          }
          const Step to(stage);
          copy_tile<kSide>(to.rows, at.tokens(p, args.rows, p.dv, s * kStep));
          copy_tile<kSide>(to.columns, at.tokens(p, args.columns, p.dv, s * kStep));
          copy_tile<kStep>(to.state, state_tile(p, state, s * kStep, at.left(), true));
        },
        [&](int s, std::byte* stage) {
          if (s == products) return;
          const Step from(stage);
          mine.template add_step<false>(from.rows, from.columns, from.state);
        });
    const Own own = load_own();
    weigh_state();
    const float state_sums[2] = {row_sum(own, 0), row_sum(own, 1)};
    float weight[2], delta[2];  // of the rows that are queries
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      weight[h] = d[mine.block()].weight[mine.row(h) % kBlock];
      delta[h] = d[mine.block()].delta[mine.row(h) % kBlock];
    }
    mine.weigh(
        g,
        [&](int other, int token) {
          return queries ? float4{}
                         : float4{d[other].weight[token], d[other].weight[token + 1],
                                  d[other].delta[token], d[other].delta[token + 1]};
        },
        [&](float score, int h, int e, float4 of_token, float w) {
          if (queries) return fmaf(score, weight[h], delta[h]) * w;
          return w * (e == 0 ? fmaf(score, of_token.x, of_token.z)
                             : fmaf(score, of_token.y, of_token.w));
        });
    mine.add_values(PipeTile<kSide>(last));
    const int first = at.chunk * kChunk;
    const std::int64_t part = static_cast<std::int64_t>(at.slice) * p.units() + at.unit;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float sum = row_sum(own, h) - state_sums[h];
      if (threadIdx.x % 4 == 0) {
        args.own_sums[part * p.padded_time() + first + mine.row(h)] = sum;
        args.state_sums[part * p.padded_time() + first + mine.row(h)] = state_sums[h];
      }
    }
    if (args.out == nullptr) return;
    mine.store([&](int row) { return args.out + p.row(at.unit, first + row) * p.dqk; }, at.left(),
               p.dqk, p.time - first);
  }
};

template <bool queries>
__global__ void __launch_bounds__(kPipeThreads, 1)
    pipelined_grads_kernel(Problem p, int slices, TiledGradArgs<bf16> args) {
  extern __shared__ __align__(128) std::byte stages[];
  Grads<queries>(p, args, slices).run(stages);
}

}  // namespace

void launch_pipelined_grad(const Stream& stream, const Problem& p, bool queries,
                           const TiledGradArgs<bf16>& args) {
  const int slices = tiled_grad_parts(p);
  launch(queries ? "mlstm_pipelined_dq" : "mlstm_pipelined_dk", stream, chunk_launch(p, slices),
         queries ? pipelined_grads_kernel<true> : pipelined_grads_kernel<false>, p, slices, args);
}

}  // namespace carousel::mlstm::cuda
