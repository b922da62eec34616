#include "core/kernels/conv.h"

#include "core/cuda/device.cuh"
#include "core/cuda/dispatch.h"
#include "core/cuda/kernels.h"
#include "core/cuda/launch.h"
#include "core/cuda/reduce.cuh"

namespace carousel::cuda {
namespace {

// A thread owns kWidth channels and walks over runs of kRun tokens, with the run's inputs and the
// kTaps − 1 tokens around it in registers. Kernels of K taps run as the next larger kTaps with zero
// weights in front.
constexpr int kLanes = 32;
constexpr int kRunsPerBlock = 8;
constexpr int kRun = 8;
// Runs that a thread of the backward walks over, adding up weight gradients.
constexpr int kRunsPerThread = 4;

template <class T>
struct Conv {
  const T *x, *window, *dy;
  Weights<T> weight, bias;
  const std::uint8_t* reset;
  T *y, *dx;
  float *dweight, *dbias;  // partial sums of the backward
  std::int64_t batch, length, channels;
  std::int64_t taps;
};

// What a thread needs to know of its channels and its sequence.
template <class T, int kWidth, int kTaps>
struct Lane {
  const Conv<T>& p;
  std::int64_t sequence, channel;

  // True if a document starts at token t.
  __device__ bool is_start(std::int64_t t) const {
    return p.reset != nullptr && t >= 0 && t < p.length && p.reset[sequence * p.length + t] != 0;
  }
  // The same for all tokens from t on, read together.
  template <int kTokens>
  __device__ void get_starts(std::int64_t t, bool (&to)[kTokens]) const {
#pragma unroll
    for (int i = 0; i < kTokens; ++i) to[i] = is_start(t + i);
  }
  // Row t of a (B,S,C) tensor; zeros outside the sequence.
  __device__ void get(const T* from, std::int64_t t, float (&to)[kWidth]) const {
    if (t >= 0 && t < p.length) {
      load(from + (sequence * p.length + t) * p.channels + channel, to);
    } else {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) to[e] = 0.0f;
    }
  }
  // Input t; before the sequence, the window's.
  __device__ void get_input(std::int64_t t, float (&to)[kWidth]) const {
    const std::int64_t slot = t + p.taps - 1;
    if (t < 0 && slot >= 0 && p.window != nullptr) {
      load(p.window + (sequence * (p.taps - 1) + slot) * p.channels + channel, to);
    } else {
      get(p.x, t, to);
    }
  }
  // Weight j of kTaps, and the bias.
  __device__ void get_weights(float (&w)[kTaps][kWidth], float (&b)[kWidth]) const {
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
      const std::int64_t tap = j - (kTaps - p.taps);
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        float value[1] = {0.0f};
        if (tap >= 0) load_weights(p.weight, (channel + e) * p.taps + tap, value);
        w[j][e] = value[0];
      }
    }
#pragma unroll
    for (int e = 0; e < kWidth; ++e) {
      float value[1] = {0.0f};
      if (p.bias.wide != nullptr || p.bias.narrow != nullptr)
        load_weights(p.bias, channel + e, value);
      b[e] = value[0];
    }
  }
};

// Zeroes rows [first, first + n): what lies beyond a document's boundary.
template <int kRows, int kWidth>
__device__ __forceinline__ void forget(float (&rows)[kRows][kWidth], int first, int n) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int e = 0; e < kWidth; ++e) {
      if (i >= first && i < first + n) rows[i][e] = 0.0f;
    }
  }
}

template <class T, int kWidth, int kTaps>
__global__ void __launch_bounds__(kLanes* kRunsPerBlock) conv_silu_fwd_kernel(Conv<T> p) {
  constexpr int kBefore = kTaps - 1;
  const std::int64_t channel = (std::int64_t{blockIdx.x} * kLanes + threadIdx.x) * kWidth;
  const std::int64_t runs = (p.length + kRun - 1) / kRun;
  const std::int64_t run = std::int64_t{blockIdx.y} * kRunsPerBlock + threadIdx.y;
  if (channel >= p.channels || run >= p.batch * runs) return;
  const Lane<T, kWidth, kTaps> lane{p, run / runs, channel};
  const std::int64_t first = run % runs * kRun;
  float w[kTaps][kWidth];
  float bias[kWidth];
  float x[kBefore + kRun][kWidth];
#pragma unroll
  for (int i = 0; i < kBefore + kRun; ++i) lane.get_input(first - kBefore + i, x[i]);
  bool starts[kBefore + kRun];
  lane.get_starts(first - kBefore, starts);
  lane.get_weights(w, bias);
#pragma unroll
  for (int i = 0; i < kBefore + kRun; ++i) {
    const std::int64_t t = first - kBefore + i;
    if (starts[i]) forget(x, i - kBefore, kBefore);
    if (i < kBefore || t >= p.length) continue;
    float y[kWidth];
#pragma unroll
    for (int e = 0; e < kWidth; ++e) {
      float pre = bias[e];
#pragma unroll
      for (int j = 0; j < kTaps; ++j) pre += w[j][e] * x[i < kBefore ? 0 : i - kBefore + j][e];
      y[e] = pre * fast_sigmoid(pre);
    }
    store(p.y + (lane.sequence * p.length + t) * p.channels + channel, y);
  }
}

// Sums over the block's threadIdx.y, in order; thread (x, 0) gets them.
template <int kWidth>
__device__ __forceinline__ void sum_over_runs(float (&value)[kWidth]) {
  __shared__ float shared[kRunsPerBlock][kLanes * kWidth];
#pragma unroll
  for (int e = 0; e < kWidth; ++e) shared[threadIdx.y][threadIdx.x * kWidth + e] = value[e];
  __syncthreads();
#pragma unroll
  for (int e = 0; e < kWidth; ++e) {
    value[e] = 0.0f;
#pragma unroll
    for (int y = 0; y < kRunsPerBlock; ++y) value[e] += shared[y][threadIdx.x * kWidth + e];
  }
  __syncthreads();
}

template <class T, int kWidth, int kTaps>
__global__ void __launch_bounds__(kLanes* kRunsPerBlock) conv_silu_bwd_kernel(Conv<T> p) {
  constexpr int kBefore = kTaps - 1;
  const std::int64_t channel = (std::int64_t{blockIdx.x} * kLanes + threadIdx.x) * kWidth;
  const bool active = channel < p.channels;  // the others still take part in sum_over_runs
  const std::int64_t per_block = kRun * kRunsPerBlock * kRunsPerThread;
  const std::int64_t chunks = (p.length + per_block - 1) / per_block;
  const Lane<T, kWidth, kTaps> lane{p, blockIdx.y / chunks, channel};
  float w[kTaps][kWidth];
  float bias[kWidth];
  if (active) lane.get_weights(w, bias);
  float dw[kTaps][kWidth] = {};
  float db[kWidth] = {};

  for (int k = 0; active && k < kRunsPerThread; ++k) {
    const std::int64_t first =
        blockIdx.y % chunks * per_block + (k * kRunsPerBlock + threadIdx.y) * kRun;
    if (first >= p.length) break;
    // Tokens first − kBefore … first + kRun + kBefore − 1, and the gradients of pre from `first`
    // on.
    float x[kRun + 2 * kBefore][kWidth];
    float d[kRun + kBefore][kWidth];
#pragma unroll
    for (int i = 0; i < kRun + 2 * kBefore; ++i) lane.get_input(first - kBefore + i, x[i]);
#pragma unroll
    for (int i = 0; i < kRun + kBefore; ++i) lane.get(p.dy, first + i, d[i]);
    bool starts[kRun + 2 * kBefore];
    lane.get_starts(first - kBefore, starts);
    // Forwards in time: pre and its gradient, the run's share of the weights'.
#pragma unroll
    for (int i = 0; i < kRun + 2 * kBefore; ++i) {
      if (starts[i]) forget(x, i - kBefore, kBefore);
      if (i < kBefore) continue;
      const int at = i < kBefore ? 0 : i - kBefore;
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        float pre = bias[e];
#pragma unroll
        for (int j = 0; j < kTaps; ++j) pre += w[j][e] * x[at + j][e];
        const float sigma = fast_sigmoid(pre);
        d[at][e] *= sigma + pre * sigma * (1.0f - sigma);
        if (at < kRun) {
          db[e] += d[at][e];
#pragma unroll
          for (int j = 0; j < kTaps; ++j) dw[j][e] += d[at][e] * x[at + j][e];
        }
      }
    }
    // Backwards in time: what reaches each input from its own document.
#pragma unroll
    for (int i = kRun + kBefore - 1; i >= 0; --i) {
      if (i < kRun && first + i < p.length) {
        float dx[kWidth];
#pragma unroll
        for (int e = 0; e < kWidth; ++e) {
          dx[e] = 0.0f;
#pragma unroll
          for (int j = 0; j < kTaps; ++j) {
            dx[e] += w[j][e] * d[i < kRun ? i + kBefore - j : 0][e];
          }
        }
        store(p.dx + (lane.sequence * p.length + first + i) * p.channels + channel, dx);
      }
      if (starts[i + kBefore]) forget(d, i, kTaps);
    }
  }

#pragma unroll
  for (int j = 0; j < kTaps; ++j) {
    sum_over_runs(dw[j]);
    const std::int64_t tap = j - (kTaps - p.taps);
    if (p.dweight == nullptr || !active || threadIdx.y != 0 || tap < 0) continue;
#pragma unroll
    for (int e = 0; e < kWidth; ++e) {
      p.dweight[(blockIdx.y * p.channels + channel + e) * p.taps + tap] = dw[j][e];
    }
  }
  sum_over_runs(db);
  if (p.dbias == nullptr || !active || threadIdx.y != 0) return;
#pragma unroll
  for (int e = 0; e < kWidth; ++e) p.dbias[blockIdx.y * p.channels + channel + e] = db[e];
}

// The last taps − 1 inputs, or zeros before the last document's start.
template <class T>
__global__ void __launch_bounds__(kLanes* kRunsPerBlock) conv_window_kernel(Conv<T> p, T* last) {
  const std::int64_t channel = std::int64_t{blockIdx.x} * kLanes * kRunsPerBlock + threadIdx.x;
  const std::int64_t slots = p.taps - 1;
  if (channel >= p.channels) return;
  const Lane<T, 1, 1> lane{p, blockIdx.y / slots, channel};
  const std::int64_t t = p.length - slots + blockIdx.y % slots;
  float value[1];
  lane.get_input(t, value);
  for (std::int64_t later = max(t + 1, std::int64_t{0}); later < p.length; ++later) {
    if (lane.is_start(later)) value[0] = 0.0f;
  }
  last[blockIdx.y * p.channels + channel] = from_float<T>(value[0]);
}

template <class F>
void dispatch_taps(std::int64_t taps, bool pairs, F&& f) {
  if (taps <= 4) {
    return pairs ? f.template operator()<2, 4>() : f.template operator()<1, 4>();
  }
  if (taps <= 8) return f.template operator()<1, 8>();
  if (taps <= 16) return f.template operator()<1, 16>();
  if (taps <= 32) return f.template operator()<1, 32>();
  throw UsageError("[conv_silu] {} taps; CUDA's kernels take at most 32", taps);
}

template <class T>
Conv<T> describe(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& reset,
                 const Tensor& window) {
  Conv<T> p{};
  p.x = data<T>(x);
  p.window = data_or_null<T>(window);
  p.weight = Weights<T>::of(weight);
  p.bias = Weights<T>::of(bias);
  p.reset = data_or_null<std::uint8_t>(reset);
  p.batch = x.dim(0);
  p.length = x.dim(1);
  p.channels = x.dim(2);
  p.taps = weight.dim(1);
  return p;
}

template <class T>
void conv_forward(const ConvForwardArgs& args) {
  const Stream stream(args.x.device());
  Conv<T> p = describe<T>(args.x, args.weight, args.bias, args.reset, args.window);
  p.y = data<T>(args.y);
  const bool pairs = p.channels % 2 == 0 && aligned16(p.x, p.window, p.y);
  const std::int64_t runs = p.batch * ((p.length + kRun - 1) / kRun);
  dispatch_taps(p.taps, pairs, [&]<int kWidth, int kTaps>() {
    launch("conv_silu_fwd", stream,
           {dim3(grid_size(p.channels, kLanes * kWidth), grid_size(runs, kRunsPerBlock)),
            dim3(kLanes, kRunsPerBlock)},
           conv_silu_fwd_kernel<T, kWidth, kTaps>, p);
  });
  if (!args.window_last.defined()) return;
  launch("conv_window", stream,
         {dim3(grid_size(p.channels, kLanes * kRunsPerBlock), grid_size(p.batch * (p.taps - 1), 1)),
          kLanes * kRunsPerBlock},
         conv_window_kernel<T>, p, data<T>(args.window_last));
}

template <class T>
void conv_backward(const ConvBackwardArgs& args) {
  const Stream stream(args.x.device());
  Conv<T> p = describe<T>(args.x, args.weight, args.bias, args.reset, args.window);
  p.dy = data<T>(args.dy);
  p.dx = data<T>(args.dx);
  if (args.x.numel() == 0) return;
  const bool pairs = p.channels % 2 == 0 && aligned16(p.x, p.window, p.dy, p.dx);
  const std::int64_t per_block = kRun * kRunsPerBlock * kRunsPerThread;
  const std::int64_t parts = p.batch * ((p.length + per_block - 1) / per_block);
  Tensor dweight;
  Tensor dbias;
  if (args.dweight.defined()) dweight = workspace(stream, parts * p.channels * p.taps);
  if (args.dbias.defined()) dbias = workspace(stream, parts * p.channels);
  p.dweight = dweight.data_or_null<float>();
  p.dbias = dbias.data_or_null<float>();
  dispatch_taps(p.taps, pairs, [&]<int kWidth, int kTaps>() {
    launch("conv_silu_bwd", stream,
           {dim3(grid_size(p.channels, kLanes * kWidth), grid_size(parts, 1)),
            dim3(kLanes, kRunsPerBlock)},
           conv_silu_bwd_kernel<T, kWidth, kTaps>, p);
  });
  if (dweight.defined()) {
    add_column_sums(stream, p.dweight, parts, p.channels * p.taps, data<float>(args.dweight));
  }
  if (dbias.defined()) add_column_sums(stream, p.dbias, parts, p.channels, data<float>(args.dbias));
}

}  // namespace

void register_conv() {
  conv_silu_fwd.set(DeviceType::kCuda, [](const ConvForwardArgs& args) {
    dispatch_floating("conv_silu_fwd", args.x.dtype(), [&]<class T>() { conv_forward<T>(args); });
  });
  conv_silu_bwd.set(DeviceType::kCuda, [](const ConvBackwardArgs& args) {
    dispatch_floating("conv_silu_bwd", args.x.dtype(), [&]<class T>() { conv_backward<T>(args); });
  });
}

}  // namespace carousel::cuda
