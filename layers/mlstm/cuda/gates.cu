// Gates to factors. One warp holds a block of 64
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
    const double remainder = sums[e] - static_cast<double>(cumulative);
    g.remainder[t] = static_cast<float>(remainder);
    g.input[t] = static_cast<float>(log_input[e] - remainder);
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

}  // namespace carousel::mlstm::cuda
