// Gates to factors (forward) and sums to gate gradients (backward). One warp holds a block of 64
// tokens, two neighbouring ones a lane; what crosses blocks goes through one summary a block.
#include "layers/mlstm/cuda/gates.h"

#include "core/cuda/launch.h"
#include "layers/mlstm/cuda/gate_math.cuh"
#include "layers/mlstm/cuda/warp.cuh"

namespace carousel::mlstm::cuda {
namespace {

using carousel::cuda::grid_size;
using carousel::cuda::launch;

constexpr int kWarps = 4;
constexpr double kLog2E = 1.4426950408889634;

// One lane's two tokens.
struct Pair {
  int token[2];
  bool inside[2], reset[2];
  float log_forget[2], input[2];  // logsigmoid(f), and i (its logsigmoid for the sigmoid gate)

  __device__ Pair(const Problem& p, const GateInputs& in, int unit, int block, int lane) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      token[e] = block * kBlock + 2 * lane + e;
      inside[e] = token[e] < p.time;
      reset[e] = false;
      log_forget[e] = 0.0f;
      input[e] = -INFINITY;
      if (!inside[e]) continue;
      const std::int64_t row = p.row(unit, token[e]);
      log_forget[e] = log_sigmoid(in.f[row]);
      input[e] = in.exponential ? in.i[row] : log_sigmoid(in.i[row]);
      if (in.reset != nullptr) {
        reset[e] = in.reset[static_cast<std::int64_t>(unit / p.heads) * p.time + token[e]] != 0;
      }
    }
  }
  __device__ Advance advance(int e) const {
    return Advance::token(log_forget[e], input[e], reset[e]);
  }
};

__global__ void __launch_bounds__(32 * kWarps)
    gate_summary_kernel(Problem p, GateInputs in, float2* summary) {
  const int index = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (index >= p.units() * p.blocks) return;
  const Pair pair(p, in, index / p.blocks, index % p.blocks, lane);
  const Advance total = scan(pair.advance(0).then(pair.advance(1)), lane);
  if (lane == 31) summary[index] = make_float2(total.add, total.low);
}

// The stabiliser after the first `blocks` blocks of a unit, the same bits for every caller.
__device__ float stabiliser_after(const float2* summary, int blocks, float m0, int lane) {
  const int per_lane = (blocks + 31) / 32;
  Advance mine;
  for (int b = lane * per_lane; b < min(blocks, (lane + 1) * per_lane); ++b) {
    mine = mine.then(Advance(summary[b].x, summary[b].y));
  }
  const Advance total = scan(mine, lane);
  return Advance(__shfl_sync(kFullWarp, total.add, 31), __shfl_sync(kFullWarp, total.low, 31))(m0);
}

__global__ void __launch_bounds__(32 * kWarps)
    gate_factors_kernel(Problem p, GateInputs in, GateOutputs out) {
  const int index = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (index >= p.units() * p.blocks) return;
  const int unit = index / p.blocks;
  const int block = index % p.blocks;
  const Pair pair(p, in, unit, block, lane);

  float m[2] = {0.0f, 0.0f};
  float m_before = 0.0f;
  if (in.exponential) {
    const float m0 = in.m0 != nullptr ? in.m0[unit] : 0.0f;
    const float2* summary = out.summary + static_cast<std::int64_t>(unit) * p.blocks;
    m_before = stabiliser_after(summary, block, m0, lane);
    const float m_after = stabiliser_after(summary, block + 1, m0, lane);
    const Advance both = scan(pair.advance(0).then(pair.advance(1)), lane);
    Advance before(__shfl_up_sync(kFullWarp, both.add, 1), __shfl_up_sync(kFullWarp, both.low, 1));
    if (lane == 0) before = Advance();
    m[0] = before.then(pair.advance(0))(m_before);
    // The next block starts from its own m_before: the last token must hold the same bits.
    m[1] = lane == 31 ? m_after : both(m_before);
  }
  const float m_left = __shfl_up_sync(kFullWarp, m[1], 1);
  const float m_previous[2] = {lane == 0 ? m_before : m_left, m[0]};

  // The difference of neighbouring stabilisers takes up their rounding: factors stay consistent.
  double log_forget[2];
  double log_input[2];
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const bool plain = pair.inside[e] && !pair.reset[e];
    log_forget[e] =
        plain ? kLog2E * (static_cast<double>(pair.log_forget[e]) -
                          (static_cast<double>(m[e]) - static_cast<double>(m_previous[e])))
              : 0.0;
    log_input[e] = kLog2E * (static_cast<double>(pair.input[e]) - static_cast<double>(m[e]));
  }
  double upto = log_forget[0] + log_forget[1];  // inclusive sum over lanes
  double from = upto;                           // inclusive sum from the right
  int last_reset = pair.reset[1] ? 2 * lane + 1 : pair.reset[0] ? 2 * lane : -1;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const double left = __shfl_up_sync(kFullWarp, upto, offset);
    const double right = __shfl_down_sync(kFullWarp, from, offset);
    const int left_reset = __shfl_up_sync(kFullWarp, last_reset, offset);
    if (lane >= offset) {
      upto += left;
      last_reset = max(last_reset, left_reset);
    }
    if (lane + offset < 32) from += right;
  }
  const int block_reset = __shfl_sync(kFullWarp, last_reset, 31);
  int reset_before = __shfl_up_sync(kFullWarp, last_reset, 1);
  if (lane == 0) reset_before = -1;
  double after = __shfl_down_sync(kFullWarp, from, 1);  // sum over the tokens right of the pair
  if (lane == 31) after = 0.0;
  const int resets[2] = {pair.reset[0] ? 2 * lane : reset_before, last_reset};
  const double sums[2] = {upto - log_forget[1], upto};
  const double suffixes[2] = {after + log_forget[1], after};

  GateBlock& g = out.blocks[index];
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int t = 2 * lane + e;
    const float cumulative = static_cast<float>(sums[e]);
    g.cumulative[t] = cumulative;
    g.remainder[t] = static_cast<float>(sums[e] - static_cast<double>(cumulative));
    g.input[t] = static_cast<float>(log_input[e]);
    g.first[t] = max(resets[e], 0);
    g.carry[t] = resets[e] < 0 ? static_cast<float>(exp2(sums[e])) : 0.0f;
    g.to_state[t] = block_reset <= t ? static_cast<float>(exp2(suffixes[e] + log_input[e])) : 0.0f;
    g.bound[t] = expf(-m[e]);
    if (out.stabiliser != nullptr && pair.inside[e])
      out.stabiliser[p.row(unit, pair.token[e])] = m[e];
    if (out.m_last != nullptr && pair.token[e] == p.time - 1) out.m_last[unit] = m[e];
  }
  if (lane == 31) g.decay = resets[1] < 0 ? static_cast<float>(exp2(sums[1])) : 0.0f;
  if (lane == 0 && out.m_chunks != nullptr && block % kChunkBlocks == 0) {
    out.m_chunks[static_cast<std::int64_t>(unit) * p.chunks() + block / kChunkBlocks] = m_before;
  }
}

// One warp a row of (B, padded S, NH).
template <class T, bool vectors>
__global__ void __launch_bounds__(32 * kWarps) delta_kernel(Problem p, DeltaArgs<T> args) {
  const std::int64_t index =
      static_cast<std::int64_t>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int head = static_cast<int>(index % p.heads);
  const int token = static_cast<int>(index / p.heads % p.padded_time());
  const int batch = static_cast<int>(index / p.heads / p.padded_time());
  if (batch >= p.batch) return;
  const int unit = batch * p.heads + head;
  GradBlock& block = args.blocks[static_cast<std::int64_t>(unit) * p.blocks + token / kBlock];
  float weight = 0.0f;
  float delta = 0.0f;
  if (token < p.time) {
    const std::int64_t row = p.row(unit, token);
    const T* dh = args.dh + row * p.dv;
    const T* h = args.h + row * p.dv;
    float sum = 0.0f;
    if constexpr (vectors) {
      using V = Vector<T>;
      const V* dh_vectors = reinterpret_cast<const V*>(dh);
      const V* h_vectors = reinterpret_cast<const V*>(h);
#pragma unroll 4
      for (int d = lane; d < p.dv / V::kSize; d += 32) {
        const V a = dh_vectors[d];
        const V b = h_vectors[d];
#pragma unroll
        for (int e = 0; e < V::kSize; ++e) sum = fmaf(to_float(a.x[e]), to_float(b.x[e]), sum);
      }
    } else {
      for (int d = lane; d < p.dv; d += 32) sum = fmaf(to_float(dh[d]), to_float(h[d]), sum);
    }
    sum = warp_sum(sum);
    const float inverse = 1.0f / args.normaliser[row];
    const float sign = args.sign[row];
    weight = p.scale * inverse;
    delta = sign == 0.0f ? 0.0f : -p.scale * sign * sum * inverse;
  }
  if (lane == 0) {
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

void launch_gates(const carousel::cuda::Stream& stream, const Problem& p, const GateInputs& in,
                  const GateOutputs& out) {
  const dim3 grid(grid_size(static_cast<std::int64_t>(p.units()) * p.blocks, kWarps));
  if (in.exponential) {
    launch("mlstm_gate_summary", stream, {.grid = grid, .block = 32 * kWarps}, gate_summary_kernel,
           p, in, out.summary);
  }
  launch("mlstm_gate_factors", stream, {.grid = grid, .block = 32 * kWarps}, gate_factors_kernel, p,
         in, out);
}

template <class T>
void launch_delta(const carousel::cuda::Stream& stream, const Problem& p,
                  const DeltaArgs<T>& args) {
  const std::int64_t rows = static_cast<std::int64_t>(p.units()) * p.padded_time();
  const auto aligned = [](const void* x) { return reinterpret_cast<std::uintptr_t>(x) % 16 == 0; };
  const bool vectors = p.dv % Vector<T>::kSize == 0 && aligned(args.dh) && aligned(args.h);
  launch("mlstm_delta", stream, {.grid = dim3(grid_size(rows, kWarps)), .block = 32 * kWarps},
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
