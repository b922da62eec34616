#include "core/kernels/conv.h"

#include <algorithm>
#include <bit>

#include "core/cuda/device.cuh"
#include "core/cuda/dispatch.h"
#include "core/cuda/kernels.h"
#include "core/cuda/launch.h"
#include "core/cuda/reduce.cuh"

namespace carousel::cuda {
namespace {

// A thread owns kWidth channels and walks over a chunk of tokens in order, with the last kTaps
// inputs in registers. Kernels of K taps run as the next larger kTaps with zero weights in front.
constexpr int kLanes = 32;
constexpr int kChunksPerBlock = 8;
// Tokens read together, so that their loads overlap; the backward has fewer registers to spare.
constexpr int kForwardAhead = 8;
constexpr int kBackwardAhead = 4;

template <class T>
struct Conv {
  const T *x, *window, *dy;
  Weights<T> weight, bias;
  const std::uint8_t* reset;
  T *y, *dx;
  float *dweight, *dbias;  // partial sums of the backward
  std::int64_t batch, length, channels;
  std::int64_t taps;
  std::int64_t chunk;  // tokens a thread walks over
};

// A thread's channels in one chunk of one sequence. Token indices are ints: a sequence is shorter
// than 2^31, and multiplying them by the row's length then takes one instruction.
template <class T, int kWidth, int kTaps>
struct Walk {
  using Values = Packet<T, kWidth>;
  const Conv<T>& p;
  std::int64_t channel, sequence;
  std::int64_t row;  // offset of the sequence's first token at the channel
  int begin, end, length, stride;

  __device__ Walk(const Conv<T>& conv, std::int64_t first_channel, std::int64_t chunk_index)
      : p(conv), channel(first_channel) {
    const std::int64_t chunks = (p.length + p.chunk - 1) / p.chunk;
    length = static_cast<int>(p.length);
    stride = static_cast<int>(p.channels);
    begin = static_cast<int>(chunk_index % chunks * p.chunk);
    end = min(begin + static_cast<int>(p.chunk), length);
    set_sequence(chunk_index / chunks);
  }
  __device__ void set_sequence(std::int64_t index) {
    sequence = index;
    row = sequence * p.length * p.channels + channel;
  }
  __device__ bool inside() const { return channel < p.channels && sequence < p.batch; }
  __device__ bool is_start(int t) const {
    return p.reset != nullptr && t >= 0 && t < length && p.reset[sequence * p.length + t] != 0;
  }
  // Row t of a (B,S,C) tensor as stored; zeros outside the sequence.
  __device__ Values get(const T* from, int t) const {
    Values values{};
    if (t >= 0 && t < length) {
      values = *reinterpret_cast<const Values*>(from + row + std::int64_t{t} * stride);
    }
    return values;
  }
  __device__ void put(T* to, int t, const float (&from)[kWidth]) const {
    store(to + row + std::int64_t{t} * stride, from);
  }
  // Input t; before the sequence, the window's.
  __device__ Values get_input(int t) const {
    const std::int64_t slot = t + p.taps - 1;
    if (t < 0 && slot >= 0 && p.window != nullptr) {
      return *reinterpret_cast<const Values*>(
          p.window + (sequence * (p.taps - 1) + slot) * p.channels + channel);
    }
    return get(p.x, t);
  }
  // Weight j of kTaps, and the bias.
  __device__ void get_weights(float (&w)[kTaps][kWidth], float (&b)[kWidth]) const {
#pragma unroll
    for (int e = 0; e < kWidth; ++e) {
      float value[1] = {0.0f};
      if (p.bias.wide != nullptr || p.bias.narrow != nullptr)
        load_weights(p.bias, channel + e, value);
      b[e] = value[0];
#pragma unroll
      for (int j = 0; j < kTaps; ++j) {
        const std::int64_t tap = j - (kTaps - p.taps);
        value[0] = 0.0f;
        if (tap >= 0) load_weights(p.weight, (channel + e) * p.taps + tap, value);
        w[j][e] = value[0];
      }
    }
  }
};

// One value a token, for the last kTaps tokens, oldest first.
template <int kWidth, int kTaps>
struct Recent {
  float at[kTaps][kWidth] = {};

  template <class Values>
  __device__ void push(const Values& values) {
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        at[j][e] = j + 1 < kTaps ? at[j + 1][e] : to_float(values.at[e]);
      }
    }
  }
  __device__ void clear() {
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) at[j][e] = 0.0f;
    }
  }
  __device__ float dot(const float (&w)[kTaps][kWidth], int e) const {
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < kTaps; ++j) sum += w[j][e] * at[j][e];
    return sum;
  }
};

// The inputs before the chunk that its first tokens see.
template <class T, int kWidth, int kTaps>
__device__ void read_past(const Walk<T, kWidth, kTaps>& walk, Recent<kWidth, kTaps>& x) {
#pragma unroll
  for (int i = 1; i < kTaps; ++i) {
    const int t = walk.begin - kTaps + i;
    if (walk.is_start(t)) x.clear();
    x.push(walk.get_input(t));
  }
}

template <class T, int kWidth, int kTaps>
__global__ void __launch_bounds__(kLanes* kChunksPerBlock) conv_silu_fwd_kernel(Conv<T> p) {
  const Walk<T, kWidth, kTaps> walk(p, (std::int64_t{blockIdx.x} * kLanes + threadIdx.x) * kWidth,
                                    std::int64_t{blockIdx.y} * kChunksPerBlock + threadIdx.y);
  if (!walk.inside()) return;
  float w[kTaps][kWidth];
  float bias[kWidth];
  walk.get_weights(w, bias);
  Recent<kWidth, kTaps> x;
  read_past(walk, x);
  for (int first = walk.begin; first < walk.end; first += kForwardAhead) {
    Packet<T, kWidth> next[kForwardAhead];
    bool starts[kForwardAhead];
#pragma unroll
    for (int i = 0; i < kForwardAhead; ++i) {
      next[i] = walk.get(p.x, first + i);
      starts[i] = walk.is_start(first + i);
    }
#pragma unroll
    for (int i = 0; i < kForwardAhead; ++i) {
      if (starts[i]) x.clear();
      x.push(next[i]);
      float y[kWidth];
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        const float pre = bias[e] + x.dot(w, e);
        y[e] = pre * fast_sigmoid(pre);
      }
      if (first + i < walk.end) walk.put(p.y, first + i, y);
    }
  }
}

// Sums over the block's threadIdx.y, in order; thread (x, 0) gets them.
template <int kWidth>
__device__ __forceinline__ void sum_over_chunks(float (&value)[kWidth]) {
  __shared__ float shared[kChunksPerBlock][kLanes * kWidth];
#pragma unroll
  for (int e = 0; e < kWidth; ++e) shared[threadIdx.y][threadIdx.x * kWidth + e] = value[e];
  __syncthreads();
#pragma unroll
  for (int e = 0; e < kWidth; ++e) {
    value[e] = 0.0f;
#pragma unroll
    for (int y = 0; y < kChunksPerBlock; ++y) value[e] += shared[y][threadIdx.x * kWidth + e];
  }
  __syncthreads();
}

// Adds the chunk's share of the gradients to dw and db, and writes its dx: a token's dx is complete
// once the kTaps − 1 tokens behind it, which may belong to the next chunk, have passed.
template <class T, int kWidth, int kTaps>
__device__ void differentiate(const Walk<T, kWidth, kTaps>& walk, float (&dw)[kTaps][kWidth],
                              float (&db)[kWidth]) {
  const Conv<T>& p = walk.p;
  float w[kTaps][kWidth];
  float bias[kWidth];
  walk.get_weights(w, bias);
  Recent<kWidth, kTaps> x;
  read_past(walk, x);
  Recent<kWidth, kTaps> dx;  // what the recent tokens have received so far
  int age = kTaps;           // tokens since the document's start, as far as it matters
  for (int first = walk.begin; first < walk.end + kTaps - 1; first += kBackwardAhead) {
    Packet<T, kWidth> next[kBackwardAhead];
    Packet<T, kWidth> dy[kBackwardAhead];
    bool starts[kBackwardAhead];
#pragma unroll
    for (int i = 0; i < kBackwardAhead; ++i) {
      next[i] = walk.get(p.x, first + i);
      dy[i] = walk.get(p.dy, first + i);
      starts[i] = walk.is_start(first + i);
    }
#pragma unroll
    for (int i = 0; i < kBackwardAhead; ++i) {
      const bool own = first + i < walk.end;
      if (starts[i]) x.clear();
      age = starts[i] ? 0 : min(age + 1, kTaps);
      x.push(next[i]);
      dx.push(Packet<float, kWidth>{});
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        const float pre = bias[e] + x.dot(w, e);
        const float sigma = fast_sigmoid(pre);
        const float d = to_float(dy[i].at[e]) * (sigma + pre * sigma * (1.0f - sigma));
        if (own) db[e] += d;
#pragma unroll
        for (int j = 0; j < kTaps; ++j) {
          if (own) dw[j][e] += d * x.at[j][e];
          if (kTaps - 1 - j <= age) dx.at[j][e] += w[j][e] * d;
        }
      }
      const int complete = first + i - (kTaps - 1);
      if (p.dx != nullptr && complete >= walk.begin && complete < walk.end)
        walk.put(p.dx, complete, dx.at[0]);
    }
  }
}

template <class T, int kWidth, int kTaps>
__global__ void __launch_bounds__(kLanes* kChunksPerBlock, kTaps* kWidth <= 8 ? 3 : 1)
    conv_silu_bwd_kernel(Conv<T> p) {
  const Walk<T, kWidth, kTaps> walk(p, (std::int64_t{blockIdx.x} * kLanes + threadIdx.x) * kWidth,
                                    std::int64_t{blockIdx.y} * kChunksPerBlock + threadIdx.y);
  float dw[kTaps][kWidth] = {};
  float db[kWidth] = {};
  if (walk.inside()) differentiate(walk, dw, db);
  const bool writes = threadIdx.y == 0 && walk.channel < p.channels;
#pragma unroll
  for (int j = 0; j < kTaps; ++j) {
    sum_over_chunks(dw[j]);
    const std::int64_t tap = j - (kTaps - p.taps);
    if (p.dweight == nullptr || !writes || tap < 0) continue;
#pragma unroll
    for (int e = 0; e < kWidth; ++e) {
      p.dweight[(blockIdx.y * p.channels + walk.channel + e) * p.taps + tap] = dw[j][e];
    }
  }
  sum_over_chunks(db);
  if (p.dbias == nullptr || !writes) return;
#pragma unroll
  for (int e = 0; e < kWidth; ++e) p.dbias[blockIdx.y * p.channels + walk.channel + e] = db[e];
}

// The last taps − 1 inputs, or zeros before the last document's start.
template <class T>
__global__ void __launch_bounds__(kLanes* kChunksPerBlock) conv_window_kernel(Conv<T> p, T* last) {
  const std::int64_t slots = p.taps - 1;
  const std::int64_t channel = std::int64_t{blockIdx.x} * kLanes * kChunksPerBlock + threadIdx.x;
  if (channel >= p.channels) return;
  Walk<T, 1, 1> walk(p, channel, 0);
  walk.set_sequence(blockIdx.y / slots);
  const int t = static_cast<int>(p.length - slots + blockIdx.y % slots);
  Packet<T, 1> value = walk.get_input(t);
  for (int later = max(t + 1, 0); later < walk.length; ++later) {
    if (walk.is_start(later)) value = Packet<T, 1>{};
  }
  last[blockIdx.y * p.channels + channel] = value.at[0];
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
Conv<T> describe(const Stream& stream, const Tensor& x, const Tensor& weight, const Tensor& bias,
                 const Tensor& reset, const Tensor& window) {
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
  CAROUSEL_CHECK(p.length < INT32_MAX / 2 && p.channels < INT32_MAX, "[conv_silu] x {}", x.shape());
  // Long chunks read their surroundings seldom; short ones make enough threads for the device.
  constexpr std::int64_t kThreadsWanted = 2048;
  const std::int64_t threads = kThreadsWanted * stream.info().multiprocessors;
  const auto chunk = static_cast<std::uint64_t>(x.numel() / 2 / threads + 1);
  p.chunk = std::clamp<std::int64_t>(static_cast<std::int64_t>(std::bit_ceil(chunk)), 16, 256);
  return p;
}

template <class T>
std::int64_t block_rows(const Conv<T>& p) {
  const std::int64_t chunks = p.batch * ((p.length + p.chunk - 1) / p.chunk);
  return (chunks + kChunksPerBlock - 1) / kChunksPerBlock;
}

template <class T>
void conv_forward(const ConvForwardArgs& args) {
  const Stream stream(args.x.device());
  Conv<T> p = describe<T>(stream, args.x, args.weight, args.bias, args.reset, args.window);
  p.y = data<T>(args.y);
  const bool pairs = p.channels % 2 == 0 && aligned16(p.x, p.window, p.y);
  dispatch_taps(p.taps, pairs, [&]<int kWidth, int kTaps>() {
    launch("conv_silu_fwd", stream,
           {dim3(grid_size(p.channels, kLanes * kWidth), grid_size(block_rows(p), 1)),
            dim3(kLanes, kChunksPerBlock)},
           conv_silu_fwd_kernel<T, kWidth, kTaps>, p);
  });
  if (!args.window_last.defined()) return;
  launch(
      "conv_window", stream,
      {dim3(grid_size(p.channels, kLanes * kChunksPerBlock), grid_size(p.batch * (p.taps - 1), 1)),
       kLanes * kChunksPerBlock},
      conv_window_kernel<T>, p, data<T>(args.window_last));
}

template <class T>
void conv_backward(const ConvBackwardArgs& args) {
  const Stream stream(args.x.device());
  if (args.x.numel() == 0) return;
  Conv<T> p = describe<T>(stream, args.x, args.weight, args.bias, args.reset, args.window);
  p.dy = data<T>(args.dy);
  p.dx = data_or_null<T>(args.dx);
  const bool pairs = p.channels % 2 == 0 && aligned16(p.x, p.window, p.dy, p.dx);
  const std::int64_t parts = block_rows(p);
  Tensor dweight;
  Tensor dbias;
  if (args.dweight.defined()) dweight = workspace(stream, parts * p.channels * p.taps);
  if (args.dbias.defined()) dbias = workspace(stream, parts * p.channels);
  p.dweight = dweight.data_or_null<float>();
  p.dbias = dbias.data_or_null<float>();
  dispatch_taps(p.taps, pairs, [&]<int kWidth, int kTaps>() {
    launch("conv_silu_bwd", stream,
           {dim3(grid_size(p.channels, kLanes * kWidth), grid_size(parts, 1)),
            dim3(kLanes, kChunksPerBlock)},
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
