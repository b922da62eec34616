#include "core/cuda/kernels.h"
#include "core/cuda/norm.cuh"

namespace carousel::cuda {
namespace {

template <class T>
struct NormForward {
  const T *x, *residual, *gate;
  Weights<T> weight;
  float weight_offset;
  T *sum, *out;
  float *mean, *rstd;
  std::int64_t rows, columns, groups;
  float eps;
  bool centred;  // LayerNorm
};

// s = x + residual at an offset, written to sum; or x.
template <int kWidth, class T>
__device__ void read_sum(const NormForward<T>& p, std::int64_t at, float (&s)[kWidth]) {
  load(p.x + at, s);
  if (p.residual == nullptr) return;
  float other[kWidth];
  load(p.residual + at, other);
#pragma unroll
  for (int e = 0; e < kWidth; ++e) s[e] = rounded<T>(s[e] + other[e]);
  store(p.sum + at, s);
}

// The output at a row's column from the centred values.
template <int kWidth, class T>
__device__ void write_normed(const NormForward<T>& p, std::int64_t row, std::int64_t column,
                             float rstd, float (&s)[kWidth]) {
  const std::int64_t at = row * p.columns + column;
  float w[kWidth];
  load_weights(p.weight, row % p.groups * p.columns + column, w);
#pragma unroll
  for (int e = 0; e < kWidth; ++e) s[e] = rounded<T>(s[e] * rstd) * (w[e] + p.weight_offset);
  if (p.gate != nullptr) {
    float gate[kWidth];
    load(p.gate + at, gate);
#pragma unroll
    for (int e = 0; e < kWidth; ++e) s[e] *= fast_sigmoid(gate[e]);
  }
  store(p.out + at, s);
}

// The row's statistics, written once.
template <class T>
__device__ float finish_statistics(const NormForward<T>& p, std::int64_t row, float mean,
                                   float squares) {
  const float rstd = 1.0f / sqrtf(squares / static_cast<float>(p.columns) + p.eps);
  if (threadIdx.x == 0) {
    if (p.centred) p.mean[row] = mean;
    p.rstd[row] = rstd;
  }
  return rstd;
}

template <class T, int kWidth, int kVectors>
__global__ void __launch_bounds__(kNormThreads) norm_fwd_kernel(NormForward<T> p) {
  const std::int64_t row = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool active = row < p.rows;  // threads of absent rows still take part in row_sum
  const auto column_of = [&](int v) {
    return (std::int64_t{v} * blockDim.x + threadIdx.x) * kWidth;
  };
  const auto valid = [&](int v) { return active && column_of(v) < p.columns; };

  float s[kVectors][kWidth] = {};
  float mean = 0.0f;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (valid(v)) read_sum(p, row * p.columns + column_of(v), s[v]);
  }
  if (p.centred) {
    float total = 0.0f;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) total += s[v][e];
    }
    mean = row_sum(total) / static_cast<float>(p.columns);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) s[v][e] = valid(v) ? s[v][e] - mean : 0.0f;
    }
  }
  float squares = 0.0f;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
#pragma unroll
    for (int e = 0; e < kWidth; ++e) squares += s[v][e] * s[v][e];
  }
  squares = row_sum(squares);
  if (!active) return;
  const float rstd = finish_statistics(p, row, mean, squares);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (valid(v)) write_normed(p, row, column_of(v), rstd, s[v]);
  }
}

// A block a row, which each pass reads again.
template <class T, int kWidth>
__global__ void __launch_bounds__(kNormThreads) norm_fwd_streamed_kernel(NormForward<T> p) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t base = row * p.columns;
  const T* const sum = p.residual != nullptr ? p.sum : p.x;
  const auto for_columns = [&](auto&& f) {
    for (std::int64_t c = std::int64_t{threadIdx.x} * kWidth; c < p.columns;
         c += std::int64_t{kNormThreads} * kWidth) {
      f(c);
    }
  };
  float total = 0.0f;
  for_columns([&](std::int64_t c) {
    float s[kWidth];
    read_sum(p, base + c, s);
#pragma unroll
    for (int e = 0; e < kWidth; ++e) total += s[e];
  });
  const float mean = p.centred ? row_sum(total) / static_cast<float>(p.columns) : 0.0f;
  float squares = 0.0f;
  for_columns([&](std::int64_t c) {
    float s[kWidth];
    load(sum + base + c, s);
#pragma unroll
    for (int e = 0; e < kWidth; ++e) squares += (s[e] - mean) * (s[e] - mean);
  });
  const float rstd = finish_statistics(p, row, mean, row_sum(squares));
  for_columns([&](std::int64_t c) {
    float s[kWidth];
    load(sum + base + c, s);
#pragma unroll
    for (int e = 0; e < kWidth; ++e) s[e] -= mean;
    write_normed(p, row, c, rstd, s);
  });
}

template <class T>
void norm_forward(const NormForwardArgs& args) {
  const Stream stream(args.out.device());
  NormForward<T> p{};
  p.x = data<T>(args.x);
  p.residual = data_or_null<T>(args.residual);
  p.gate = data_or_null<T>(args.gate);
  p.weight = Weights<T>::of(args.weight);
  p.weight_offset = weight_offset(args.options);
  p.sum = data_or_null<T>(args.sum);
  p.out = data<T>(args.out);
  p.mean = data_or_null<float>(args.mean);
  p.rstd = data<float>(args.rstd);
  p.rows = args.x.dim(0);
  p.columns = args.x.dim(1);
  if (p.rows == 0 || p.columns == 0) return;
  p.groups = args.weight.numel() / p.columns;
  p.eps = static_cast<float>(args.options.eps);
  p.centred = args.options.kind == NormKind::kLayer;
  const bool aligned =
      aligned16(p.weight.narrow, p.weight.wide, p.x, p.residual, p.gate, p.sum, p.out);
  const NormShape shape = norm_shape(p.columns, kVector<T>, aligned);
  dispatch_norm_shape<T>(shape, [&]<int kWidth, int kVectors>() {
    const LaunchShape grid{grid_size(p.rows, shape.rows_per_block()), shape.block()};
    if constexpr (kVectors == 0) {
      launch("norm_fwd", stream, grid, norm_fwd_streamed_kernel<T, kWidth>, p);
    } else {
      launch("norm_fwd", stream, grid, norm_fwd_kernel<T, kWidth, kVectors>, p);
    }
  });
}

}  // namespace

void register_norm_forward() {
  norm_fwd.set(DeviceType::kCuda, [](const NormForwardArgs& args) {
    dispatch_floating("norm_fwd", args.x.dtype(), [&]<class T>() { norm_forward<T>(args); });
  });
}

}  // namespace carousel::cuda
