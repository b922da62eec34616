// The recurrence token by token. Every direction is one scan over a matrix X held in registers,
// rows distributed over warps and columns over lanes:
//   X = f·X + a·u wᵀ,  y = b·X z
//   h:  X = Cᵀ, u = v, w = k, z = q            dq: X = C, u = k, w = v, z = dh
//   dv: X = dCᵀ, u = dh, w = q, z = k          dk: X = dC, u = q, w = dh, z = v   (both back in
//   time)
// n rides along: for h as one more row in every warp, for dq and dk as one more column.
#include <algorithm>

#include "core/cuda/launch.h"
#include "layers/mlstm/cuda/gate_math.cuh"
#include "layers/mlstm/cuda/scan.h"

namespace carousel::mlstm::cuda {
namespace {

using carousel::cuda::grid_size;
using carousel::cuda::launch;
using carousel::cuda::Stream;

constexpr int kWarps = 8;
constexpr int kRows = 4;   // of X a warp
constexpr int kSteps = 8;  // tokens staged in shared memory at a time
constexpr int kRowsPerCta = kWarps * kRows;

enum class Kind { kH, kDq, kDk, kDv };

template <class T>
struct ScanParams {
  const T* u;  // (B, S, NH, rows)
  const T* w;  // (B, S, NH, columns)
  const T* z;
  int rows, columns;
  TokenFactors factors;
  const GradBlock* grads;  // not for h
  const float* x_first;    // natural state or null
  const float* n_first;
  float* x_last;  // natural state or null, each for itself
  float* n_last;
  T* y;             // (B, S, NH, rows) or null
  float* row_sums;  // (parts, units, padded time): Σ_r u·y (dq, dk), or null; u is k or q there, so
  const T* sum_factor;  // this is the factor: q for dq, k for dk
  float eps;
  float* normaliser;
  float* sign;
};

// The coefficients of a token: X = f·X + a·u wᵀ, n = f·n + n_in·(k or q), y = b·X z + n_out·n.
struct Coefficients {
  float f, a, b, n_in, n_out;
};

template <Kind kind, class T>
__device__ Coefficients coefficients(const Problem& p, const ScanParams<T>& params, int unit,
                                     int t) {
  constexpr bool kForward = kind == Kind::kH || kind == Kind::kDq;
  const std::int64_t begin = static_cast<std::int64_t>(unit) * p.time;
  const float input = params.factors.input[begin + t];
  Coefficients c{};
  // Back in time, X steps from the state after t + 1 to the state after t by F̂ of t + 1.
  c.f = kForward ? params.factors.forget[begin + t]
                 : (t + 1 < p.time ? params.factors.forget[begin + t + 1] : 1.0f);
  float weight = 0.0f;
  float delta = 0.0f;
  if constexpr (kind != Kind::kH) {
    const GradBlock& g = params.grads[static_cast<std::int64_t>(unit) * p.blocks + t / kBlock];
    weight = g.weight[t % kBlock];
    delta = g.delta[t % kBlock];
  }
  c.a = kForward ? input : weight;
  c.b = kind == Kind::kDq ? weight : input;  // h: unused
  c.n_in = kind == Kind::kDk ? delta : input;
  c.n_out = kind == Kind::kDq ? delta : input;
  return c;
}

template <Kind kind, int per_lane, class T>
__global__ void __launch_bounds__(32 * kWarps) scan_kernel(Problem p, ScanParams<T> params) {
  constexpr bool kForward = kind == Kind::kH || kind == Kind::kDq;
  constexpr bool kTransposed = kind == Kind::kH || kind == Kind::kDv;  // X is a transposed state
  constexpr int kColumns = 32 * per_lane;
  extern __shared__ float staged[];
  float* w = staged;                      // [kSteps][kColumns]
  float* z = w + kSteps * kColumns;       // [kSteps][kColumns]
  float* u = z + kSteps * kColumns;       // [kSteps][kRowsPerCta]
  float* own = u + kSteps * kRowsPerCta;  // [kSteps][kRowsPerCta]: the sums' factor
  __shared__ Coefficients steps[kSteps];
  __shared__ float warp_sums[kSteps][kWarps];

  const int groups = (params.rows + kRowsPerCta - 1) / kRowsPerCta;
  const int unit = static_cast<int>(blockIdx.x) / groups;
  const int first_row = static_cast<int>(blockIdx.x) % groups * kRowsPerCta;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t size = static_cast<std::int64_t>(p.dqk) * p.dv;
  const auto natural = [&](int r, int i) {  // index of X[r][i] in its state, −1 outside
    const int row = first_row + warp * kRows + r;
    const int column = lane + 32 * i;
    if (row >= params.rows || column >= params.columns) return std::int64_t{-1};
    return static_cast<std::int64_t>(unit) * size +
           (kTransposed ? static_cast<std::int64_t>(column) * p.dv + row
                        : static_cast<std::int64_t>(row) * p.dv + column);
  };

  float x[kRows][per_lane];
  float n_row[per_lane] = {};  // h: n itself
  float n[kRows] = {};         // dq, dk: n of the warp's rows
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int i = 0; i < per_lane; ++i) {
      const std::int64_t at = natural(r, i);
      x[r][i] = params.x_first != nullptr && at >= 0 ? params.x_first[at] : 0.0f;
    }
    const int row = first_row + warp * kRows + r;
    if (!kTransposed && params.n_first != nullptr && row < p.dqk) {
      n[r] = params.n_first[static_cast<std::int64_t>(unit) * p.dqk + row];
    }
  }
  if (kind == Kind::kH && params.n_first != nullptr) {
#pragma unroll
    for (int i = 0; i < per_lane; ++i) {
      const int column = lane + 32 * i;
      if (column < p.dqk)
        n_row[i] = params.n_first[static_cast<std::int64_t>(unit) * p.dqk + column];
    }
  }

  for (int begin = 0; begin < p.time; begin += kSteps) {
    const int count = min(kSteps, p.time - begin);
    const auto token = [&](int step) {
      return kForward ? begin + step : p.time - 1 - begin - step;
    };
    __syncthreads();
    for (int at = static_cast<int>(threadIdx.x); at < count * kColumns; at += 32 * kWarps) {
      const int column = at % kColumns;
      const std::int64_t from = p.row(unit, token(at / kColumns)) * params.columns + column;
      w[at] = column < params.columns ? to_float(params.w[from]) : 0.0f;
      z[at] = column < params.columns ? to_float(params.z[from]) : 0.0f;
    }
    for (int at = static_cast<int>(threadIdx.x); at < count * kRowsPerCta; at += 32 * kWarps) {
      const int row = first_row + at % kRowsPerCta;
      const std::int64_t from = p.row(unit, token(at / kRowsPerCta)) * params.rows + row;
      u[at] = row < params.rows ? to_float(params.u[from]) : 0.0f;
      if (!kTransposed) own[at] = row < params.rows ? to_float(params.sum_factor[from]) : 0.0f;
    }
    if (static_cast<int>(threadIdx.x) < count) {
      steps[threadIdx.x] =
          coefficients<kind>(p, params, unit, token(static_cast<int>(threadIdx.x)));
    }
    __syncthreads();

    for (int step = 0; step < count; ++step) {
      const Coefficients c = steps[step];
      float y[kRows] = {};
      float n_q = 0.0f;
#pragma unroll
      for (int i = 0; i < per_lane; ++i) {
        const float wi = w[step * kColumns + lane + 32 * i];
        const float zi = z[step * kColumns + lane + 32 * i];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const float ur = c.a * u[step * kRowsPerCta + warp * kRows + r];
          x[r][i] = fmaf(c.f, x[r][i], ur * wi);
          y[r] = fmaf(x[r][i], zi, y[r]);
        }
        if constexpr (kind == Kind::kH) {
          n_row[i] = fmaf(c.f, n_row[i], c.n_in * wi);
          n_q = fmaf(n_row[i], zi, n_q);
        }
      }
      const std::int64_t at = p.row(unit, token(step));
      float b = c.b;
      if constexpr (kind == Kind::kH) {
        const float denominator = p.scale * warp_sum(n_q);
        const float bound =
            params.factors.bound[static_cast<std::int64_t>(unit) * p.time + token(step)];
        const float normaliser = fmaxf(fabsf(denominator), bound) + params.eps;
        b = p.scale / normaliser;
        if (first_row == 0 && threadIdx.x == 0 && params.normaliser != nullptr) {
          params.normaliser[at] = normaliser;
          params.sign[at] = fabsf(denominator) > bound ? copysignf(1.0f, denominator) : 0.0f;
        }
      }
      float sum = 0.0f;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int in_cta = warp * kRows + r;
        y[r] = b * warp_sum(y[r]);
        if constexpr (!kTransposed) {
          n[r] = fmaf(c.f, n[r], c.n_in * u[step * kRowsPerCta + in_cta]);
          y[r] = fmaf(c.n_out, n[r], y[r]);
          sum = fmaf(own[step * kRowsPerCta + in_cta], y[r], sum);
        }
        if (lane == r && params.y != nullptr && first_row + in_cta < params.rows) {
          params.y[at * params.rows + first_row + in_cta] = from_float<T>(y[r]);
        }
      }
      if (!kTransposed && lane == 0) warp_sums[step][warp] = sum;
    }
    if (!kTransposed && params.row_sums != nullptr) {
      __syncthreads();
      if (static_cast<int>(threadIdx.x) < count) {
        float sum = 0.0f;
        for (int i = 0; i < kWarps; ++i) sum += warp_sums[threadIdx.x][i];
        const std::int64_t part =
            static_cast<std::int64_t>(first_row / kRowsPerCta) * p.units() + unit;
        params.row_sums[part * p.padded_time() + token(static_cast<int>(threadIdx.x))] = sum;
      }
    }
  }

  // Back in time, the initial state is one more F̂ away.
  const float last =
      kForward ? 1.0f : params.factors.forget[static_cast<std::int64_t>(unit) * p.time];
  if (params.x_last != nullptr) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < per_lane; ++i) {
        const std::int64_t at = natural(r, i);
        if (at >= 0) params.x_last[at] = last * x[r][i];
      }
    }
  }
  if (params.n_last != nullptr) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int row = first_row + warp * kRows + r;
      if (!kTransposed && lane == 0 && row < p.dqk) {
        params.n_last[static_cast<std::int64_t>(unit) * p.dqk + row] = last * n[r];
      }
    }
    if (kind == Kind::kH && first_row == 0 && warp == 0) {
#pragma unroll
      for (int i = 0; i < per_lane; ++i) {
        const int column = lane + 32 * i;
        if (column < p.dqk)
          params.n_last[static_cast<std::int64_t>(unit) * p.dqk + column] = n_row[i];
      }
    }
  }
}

template <Kind kind, int per_lane, class T>
void launch_kernel(const Stream& stream, const Problem& p, const ScanParams<T>& params) {
  const std::int64_t groups = (params.rows + kRowsPerCta - 1) / kRowsPerCta;
  const std::size_t floats = kSteps * (2 * 32 * per_lane + 2 * kRowsPerCta);
  launch("mlstm_scan", stream,
         {.grid = dim3(grid_size(p.units() * groups, 1)),
          .block = 32 * kWarps,
          .shared_bytes = floats * sizeof(float)},
         scan_kernel<kind, per_lane, T>, p, params);
}

template <Kind kind, class T>
void launch_scan(const Stream& stream, const Problem& p, const ScanParams<T>& params) {
  CAROUSEL_CHECK(params.columns <= kMaxScanColumns, "{} columns in a scan", params.columns);
  if (params.columns <= 64) return launch_kernel<kind, 2>(stream, p, params);
  if (params.columns <= 128) return launch_kernel<kind, 4>(stream, p, params);
  if (params.columns <= 256) return launch_kernel<kind, 8>(stream, p, params);
  if (params.columns <= 512) return launch_kernel<kind, 16>(stream, p, params);
  launch_kernel<kind, 32>(stream, p, params);
}

// One warp a unit, 32 tokens at a time.
__global__ void __launch_bounds__(32)
    token_factors_kernel(Problem p, GateInputs in, TokenFactors out, float* stabiliser,
                         float* m_last) {
  const int unit = static_cast<int>(blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x);
  float m_before = in.exponential && in.m0 != nullptr ? in.m0[unit] : 0.0f;
  for (int begin = 0; begin < p.time; begin += 32) {
    const int t = begin + lane;
    const bool inside = t < p.time;
    const std::int64_t row = p.row(unit, inside ? t : p.time - 1);
    const float log_forget = inside ? log_sigmoid(in.f[row]) : 0.0f;
    const float input = in.exponential ? in.i[row] : log_sigmoid(in.i[row]);
    const bool reset = inside && in.reset != nullptr &&
                       in.reset[static_cast<std::int64_t>(unit / p.heads) * p.time + t] != 0;
    float m = 0.0f;
    float m_previous = 0.0f;
    if (in.exponential) {
      const Advance token = inside ? Advance::token(log_forget, input, reset) : Advance();
      m = scan(token, lane)(m_before);
      m_previous = __shfl_up_sync(kFullWarp, m, 1);
      if (lane == 0) m_previous = m_before;
      m_before = __shfl_sync(kFullWarp, m, 31);
    }
    if (!inside) continue;
    const std::int64_t at = static_cast<std::int64_t>(unit) * p.time + t;
    out.forget[at] = reset ? 0.0f : expf(log_forget - (m - m_previous));
    out.input[at] = expf(input - m);
    out.bound[at] = expf(-m);
    if (stabiliser != nullptr) stabiliser[row] = m;
    if (m_last != nullptr && t == p.time - 1) m_last[unit] = m;
  }
}

}  // namespace

void launch_token_factors(const Stream& stream, const Problem& p, const GateInputs& in,
                          const TokenFactors& out, float* stabiliser, float* m_last) {
  launch("mlstm_token_factors", stream, {.grid = dim3(grid_size(p.units(), 1)), .block = 32},
         token_factors_kernel, p, in, out, stabiliser, m_last);
}

template <class T>
void launch_scan_fwd(const Stream& stream, const Problem& p, const ScanForwardArgs<T>& args) {
  ScanParams<T> params{};
  params.u = args.v;
  params.w = args.k;
  params.z = args.q;
  params.rows = p.dv;
  params.columns = p.dqk;
  params.factors = args.factors;
  params.x_first = args.c0;
  params.n_first = args.n0;
  params.x_last = args.c_last;
  params.n_last = args.n_last;
  params.y = args.h;
  params.eps = args.eps;
  params.normaliser = args.normaliser;
  params.sign = args.sign;
  launch_scan<Kind::kH>(stream, p, params);
}
template void launch_scan_fwd(const Stream&, const Problem&, const ScanForwardArgs<float>&);
template void launch_scan_fwd(const Stream&, const Problem&, const ScanForwardArgs<__nv_bfloat16>&);

int scan_parts(const Problem& p) { return (p.dqk + kRowsPerCta - 1) / kRowsPerCta; }

template <class T>
void launch_scan_bwd(const Stream& stream, const Problem& p, const ScanBackwardArgs<T>& args) {
  ScanParams<T> shared{};
  shared.factors = args.factors;
  shared.grads = args.grads;
  if (args.dq != nullptr || args.q_dq != nullptr) {
    ScanParams<T> params = shared;
    params.u = args.k;
    params.w = args.v;
    params.z = args.dh;
    params.rows = p.dqk;
    params.columns = p.dv;
    params.x_first = args.c0;
    params.n_first = args.n0;
    params.y = args.dq;
    params.row_sums = args.q_dq;
    params.sum_factor = args.q;
    launch_scan<Kind::kDq>(stream, p, params);
  }
  if (args.dk != nullptr || args.k_dk != nullptr || args.dc0 != nullptr || args.dn0 != nullptr) {
    ScanParams<T> params = shared;
    params.u = args.q;
    params.w = args.dh;
    params.z = args.v;
    params.rows = p.dqk;
    params.columns = p.dv;
    params.x_first = args.dc_last;
    params.n_first = args.dn_last;
    params.x_last = args.dc0;
    params.n_last = args.dn0;
    params.y = args.dk;
    params.row_sums = args.k_dk;
    params.sum_factor = args.k;
    launch_scan<Kind::kDk>(stream, p, params);
  }
  if (args.dv != nullptr) {
    ScanParams<T> params = shared;
    params.u = args.dh;
    params.w = args.q;
    params.z = args.k;
    params.rows = p.dv;
    params.columns = p.dqk;
    params.x_first = args.dc_last;
    params.n_first = args.dn_last;
    params.y = args.dv;
    launch_scan<Kind::kDv>(stream, p, params);
  }
}
template void launch_scan_bwd(const Stream&, const Problem&, const ScanBackwardArgs<float>&);
template void launch_scan_bwd(const Stream&, const Problem&,
                              const ScanBackwardArgs<__nv_bfloat16>&);

}  // namespace carousel::mlstm::cuda
