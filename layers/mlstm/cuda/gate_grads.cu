// The backward of the gates: Δ and weights before, sums to gradients after. Where a warp holds a
// block of 64 tokens, a lane has two neighbouring ones; what crosses blocks goes through one
// summary a block.
#include "core/cuda/launch.h"
#include "layers/mlstm/cuda/gate_math.cuh"
#include "layers/mlstm/cuda/gates.h"

namespace carousel::mlstm::cuda {
namespace {

using carousel::cuda::grid_size;
using carousel::cuda::launch;

constexpr int kWarps = 4;
constexpr int kDeltaRows = 4;  // tokens a warp takes at once, to keep enough loads in flight
constexpr int kDeltaTokens = kWarps * kDeltaRows;

// One CTA takes kDeltaTokens tokens of a unit; heads come fastest, as in memory.
template <class T, bool vectors>
__global__ void __launch_bounds__(32 * kWarps) delta_kernel(Problem p, DeltaArgs<T> args) {
  const int unit = static_cast<int>(blockIdx.x) % p.units();
  const int first = static_cast<int>(blockIdx.x) / p.units() * kDeltaTokens +
                    static_cast<int>(threadIdx.x) / 32 * kDeltaRows;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const T* dh[kDeltaRows];  // null outside the sequence
  const T* h[kDeltaRows];
  float sums[kDeltaRows] = {};
#pragma unroll
  for (int r = 0; r < kDeltaRows; ++r) {
    const bool inside = first + r < p.time;
    const std::int64_t at = inside ? p.row(unit, first + r) * p.dv : 0;
    dh[r] = inside ? args.dh + at : nullptr;
    h[r] = inside ? args.h + at : nullptr;
  }
  if constexpr (vectors) {
    using V = Vector<T>;
#pragma unroll 2
    for (int d = lane * V::kSize; d < p.dv; d += 32 * V::kSize) {
      V a[kDeltaRows] = {};
      V b[kDeltaRows] = {};
#pragma unroll
      for (int r = 0; r < kDeltaRows; ++r) {
        if (dh[r] == nullptr) continue;
        a[r] = *reinterpret_cast<const V*>(dh[r] + d);
        b[r] = *reinterpret_cast<const V*>(h[r] + d);
      }
#pragma unroll
      for (int r = 0; r < kDeltaRows; ++r) {
#pragma unroll
        for (int e = 0; e < V::kSize; ++e) {
          sums[r] = fmaf(to_float(a[r].x[e]), to_float(b[r].x[e]), sums[r]);
        }
      }
    }
  } else {
    for (int d = lane; d < p.dv; d += 32) {
#pragma unroll
      for (int r = 0; r < kDeltaRows; ++r) {
        if (dh[r] != nullptr) sums[r] = fmaf(to_float(dh[r][d]), to_float(h[r][d]), sums[r]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kDeltaRows; ++r) {
    const float sum = warp_sum(sums[r]);
    if (lane != 0) continue;
    const int token = first + r;
    float weight = 0.0f;
    float delta = 0.0f;
    if (token < p.time) {
      const std::int64_t row = p.row(unit, token);
      const float sign = args.sign[row];
      weight = p.scale / args.normaliser[row];
      delta = sign == 0.0f ? 0.0f : -sign * sum * weight;
    }
    GradBlock& block = args.blocks[static_cast<std::int64_t>(unit) * p.blocks + token / kBlock];
    block.weight[token % kBlock] = weight;
    block.delta[token % kBlock] = delta;
  }
}

constexpr int kDotThreads = 256;

template <class T>
__device__ float dot(const T* a, const T* b, std::int64_t n) {
  float sum = 0.0f;
  using V = Vector<T>;
  const bool vectors = n % V::kSize == 0;  // blocks of states then start at multiples of 16 bytes
  if (vectors) {
    const V* va = reinterpret_cast<const V*>(a);
    const V* vb = reinterpret_cast<const V*>(b);
#pragma unroll 4
    for (std::int64_t d = threadIdx.x; d < n / V::kSize; d += kDotThreads) {
      const V x = va[d];
      const V y = vb[d];
#pragma unroll
      for (int e = 0; e < V::kSize; ++e) sum = fmaf(to_float(x.x[e]), to_float(y.x[e]), sum);
    }
  } else {
    for (std::int64_t d = threadIdx.x; d < n; d += kDotThreads) {
      sum = fmaf(to_float(a[d]), to_float(b[d]), sum);
    }
  }
  return sum;
}

template <class T>
__global__ void __launch_bounds__(kDotThreads)
    passing_kernel(Problem p, int chunk_blocks, const GateBlock* gates, const T* c, const float* n,
                   const T* dc, const float* dn, float* passing) {
  const int chunks = (p.blocks + chunk_blocks - 1) / chunk_blocks;
  const std::int64_t state = blockIdx.x;
  const std::int64_t size = static_cast<std::int64_t>(p.dqk) * p.dv;
  const int begin = static_cast<int>(state % chunks) * chunk_blocks;
  const GateBlock* g = gates + state / chunks * p.blocks;
  float decay = 1.0f;
  for (int b = begin; b < min(begin + chunk_blocks, p.blocks); ++b) decay *= g[b].decay;
  float sum = 0.0f;
  if (decay != 0.0f) {
    sum = dot(c + state * size, dc + state * size, size) +
          dot(n + state * p.dqk, dn + state * p.dqk, p.dqk);
  }
  const float total = block_sum<kDotThreads>(sum);
  if (threadIdx.x == 0) passing[state] = decay * total;
}

__global__ void __launch_bounds__(kDotThreads)
    state_products_kernel(Problem p, const float* c, const float* n, const float* dc,
                          const float* dn, float* out) {
  const std::int64_t unit = blockIdx.x;
  const std::int64_t size = static_cast<std::int64_t>(p.dqk) * p.dv;
  const float sum = dot(c + unit * size, dc + unit * size, size) +
                    dot(n + unit * p.dqk, dn + unit * p.dqk, p.dqk);
  const float total = block_sum<kDotThreads>(sum);
  if (threadIdx.x == 0) out[unit] = total;
}

// The sums of one padded token, parts added up.
struct Token {
  bool inside, reset;
  float difference = 0.0f;  // q_own − k_own
  float k_dk = 0.0f;        // all of it
  float q_state = 0.0f, k_state = 0.0f;

  __device__ Token(const Problem& p, const GateGradArgs& args, int unit, int token)
      : inside(token < p.time) {
    const std::uint8_t* resets = args.in.reset;
    reset = inside && resets != nullptr &&
            resets[static_cast<std::int64_t>(unit / p.heads) * p.time + token] != 0;
    const std::int64_t index = static_cast<std::int64_t>(unit) * p.padded_time() + token;
    const std::int64_t part = static_cast<std::int64_t>(p.units()) * p.padded_time();
    for (int i = 0; i < args.parts && inside; ++i) {
      const float k_own = args.sums.k_own[i * part + index];
      difference += args.sums.q_own[i * part + index] - k_own;
      k_dk += k_own;
      if (args.sums.q_state != nullptr) q_state += args.sums.q_state[i * part + index];
      if (args.sums.k_state != nullptr) k_state += args.sums.k_state[i * part + index];
    }
    k_dk += k_state;
  }
};

// A sum over a run of tokens from its left end to the first reset, or to its right end.
struct Run {
  float sum;
  bool closed;  // a reset ends it

  /// A reset closes the sums that come from its left, before its own token is added.
  static __device__ Run of(const Token& t) {
    return t.reset ? Run{0.0f, true} : Run{t.difference, false};
  }
  __device__ Run then(const Run& right) const {
    return closed ? *this : Run{sum + right.sum, right.closed};
  }
};

__device__ __forceinline__ Run reverse_scan(Run x, int lane) {
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const Run right{__shfl_down_sync(kFullWarp, x.sum, offset),
                    __shfl_down_sync(kFullWarp, static_cast<int>(x.closed), offset) != 0};
    if (lane + offset < 32) x = x.then(right);
  }
  return x;
}

// Per block: the run of its differences, whether it is closed, Σ q_state, Σ k_state.
__global__ void __launch_bounds__(32 * kWarps)
    gate_grad_summary_kernel(Problem p, GateGradArgs args) {
  const int index = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (index >= p.units() * p.blocks) return;
  const int unit = index / p.blocks;
  const int token = index % p.blocks * kBlock + 2 * lane;
  const Token left(p, args, unit, token);
  const Token right(p, args, unit, token + 1);
  const Run run = reverse_scan(Run::of(left).then(Run::of(right)), lane);
  const float q_state = warp_sum(left.q_state + right.q_state);
  const float k_state = warp_sum(left.k_state + right.k_state);
  if (lane == 0)
    args.summary[index] = make_float4(run.sum, run.closed ? 1.0f : 0.0f, q_state, k_state);
}

// The other blocks of a block's chunk.
struct Outside {
  Run after{0.0f, false};  // of the blocks right of it
  float q_after = 0.0f;    // Σ q_state right of it
  float k_before = 0.0f;   // Σ k_state left of it

  __device__ Outside(const Problem& p, const GateGradArgs& args, int unit, int block, int lane) {
    const int begin = block / args.chunk_blocks * args.chunk_blocks;
    const int end = min(begin + args.chunk_blocks, p.blocks);
    const float4* summary = args.summary + static_cast<std::int64_t>(unit) * p.blocks;
    for (int first = block + 1; first < end; first += 32) {
      const float4 s =
          first + lane < end ? summary[first + lane] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      const Run batch = reverse_scan(Run{s.x, s.y != 0.0f}, lane);
      after = after.then(Run{__shfl_sync(kFullWarp, batch.sum, 0),
                             __shfl_sync(kFullWarp, static_cast<int>(batch.closed), 0) != 0});
      q_after += warp_sum(s.z);
    }
    for (int first = begin; first < block; first += 32) {
      k_before += warp_sum(first + lane < block ? summary[first + lane].w : 0.0f);
    }
  }
};

__global__ void __launch_bounds__(32 * kWarps) gate_grad_kernel(Problem p, GateGradArgs args) {
  const int index = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (index >= p.units() * p.blocks) return;
  const int unit = index / p.blocks;
  const int block = index % p.blocks;
  const Outside outside(p, args, unit, block, lane);
  const int token = block * kBlock + 2 * lane;
  const Token tokens[2] = {{p, args, unit, token}, {p, args, unit, token + 1}};

  const int chunks = (p.blocks + args.chunk_blocks - 1) / args.chunk_blocks;
  const float passing =
      args.sums.passing != nullptr
          ? args.sums.passing[static_cast<std::int64_t>(unit) * chunks + block / args.chunk_blocks]
          : 0.0f;
  const Run pair = Run::of(tokens[0]).then(Run::of(tokens[1]));
  const Run mine = reverse_scan(pair, lane);
  Run right{__shfl_down_sync(kFullWarp, mine.sum, 1),
            __shfl_down_sync(kFullWarp, static_cast<int>(mine.closed), 1) != 0};
  if (lane == 31) right = Run{0.0f, false};
  right = right.then(outside.after).then(Run{passing, true});
  const float own[2] = {pair.then(right).sum, Run::of(tokens[1]).then(right).sum};

  float q_from = tokens[0].q_state + tokens[1].q_state;  // inclusive sum from the right
  float k_upto = tokens[0].k_state + tokens[1].k_state;  // inclusive sum from the left
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const float q_right = __shfl_down_sync(kFullWarp, q_from, offset);
    const float k_left = __shfl_up_sync(kFullWarp, k_upto, offset);
    if (lane + offset < 32) q_from += q_right;
    if (lane >= offset) k_upto += k_left;
  }
  float q_right = __shfl_down_sync(kFullWarp, q_from, 1);  // of the lanes right of this one
  float k_left = __shfl_up_sync(kFullWarp, k_upto, 1);
  if (lane == 31) q_right = 0.0f;
  if (lane == 0) k_left = 0.0f;
  const float queries[2] = {tokens[0].q_state + tokens[1].q_state + q_right + outside.q_after,
                            tokens[1].q_state + q_right + outside.q_after};
  const float keys[2] = {outside.k_before + k_left, outside.k_before + k_left + tokens[0].k_state};
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    if (!tokens[e].inside) continue;
    const std::int64_t row = p.row(unit, token + e);
    if (args.di != nullptr) {
      args.di[row] =
          args.in.exponential ? tokens[e].k_dk : sigmoid(-args.in.i[row]) * tokens[e].k_dk;
    }
    if (args.df != nullptr) {
      const bool acts = !tokens[e].reset && (token + e > 0 || args.initial_state);
      args.df[row] = acts ? sigmoid(-args.in.f[row]) * (own[e] + queries[e] + keys[e]) : 0.0f;
    }
  }
}

}  // namespace

template <class T>
void launch_delta(const carousel::cuda::Stream& stream, const Problem& p,
                  const DeltaArgs<T>& args) {
  const std::int64_t blocks =
      static_cast<std::int64_t>(p.units()) * (p.padded_time() / kDeltaTokens);
  const auto aligned = [](const void* x) { return reinterpret_cast<std::uintptr_t>(x) % 16 == 0; };
  const bool vectors = p.dv % Vector<T>::kSize == 0 && aligned(args.dh) && aligned(args.h);
  launch("mlstm_delta", stream, {.grid = dim3(grid_size(blocks, 1)), .block = 32 * kWarps},
         vectors ? delta_kernel<T, true> : delta_kernel<T, false>, p, args);
}
template void launch_delta(const carousel::cuda::Stream&, const Problem&, const DeltaArgs<float>&);
template void launch_delta(const carousel::cuda::Stream&, const Problem&,
                           const DeltaArgs<__nv_bfloat16>&);

template <class T>
void launch_passing(const carousel::cuda::Stream& stream, const Problem& p, int chunk_blocks,
                    const GateBlock* gates, const T* c, const float* n, const T* dc,
                    const float* dn, float* passing) {
  const std::int64_t states =
      static_cast<std::int64_t>(p.units()) * ((p.blocks + chunk_blocks - 1) / chunk_blocks);
  launch("mlstm_passing", stream, {.grid = dim3(grid_size(states, 1)), .block = kDotThreads},
         passing_kernel<T>, p, chunk_blocks, gates, c, n, dc, dn, passing);
}
template void launch_passing(const carousel::cuda::Stream&, const Problem&, int, const GateBlock*,
                             const float*, const float*, const float*, const float*, float*);
template void launch_passing(const carousel::cuda::Stream&, const Problem&, int, const GateBlock*,
                             const __nv_bfloat16*, const float*, const __nv_bfloat16*, const float*,
                             float*);

void launch_state_products(const carousel::cuda::Stream& stream, const Problem& p, const float* c,
                           const float* n, const float* dc, const float* dn, float* out) {
  launch("mlstm_state_products", stream,
         {.grid = dim3(grid_size(p.units(), 1)), .block = kDotThreads}, state_products_kernel, p, c,
         n, dc, dn, out);
}

void launch_gate_grads(const carousel::cuda::Stream& stream, const Problem& p,
                       const GateGradArgs& args) {
  const dim3 grid(grid_size(static_cast<std::int64_t>(p.units()) * p.blocks, kWarps));
  launch("mlstm_gate_grad_summary", stream, {.grid = grid, .block = 32 * kWarps},
         gate_grad_summary_kernel, p, args);
  launch("mlstm_gate_grads", stream, {.grid = grid, .block = 32 * kWarps}, gate_grad_kernel, p,
         args);
}

}  // namespace carousel::mlstm::cuda
