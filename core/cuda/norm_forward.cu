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

template <class T, int kWidth, int kVectors>
__global__ void __launch_bounds__(kNormThreads) norm_fwd_kernel(NormForward<T> p) {
  const std::int64_t row = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool active = row < p.rows;  // threads of absent rows still take part in row_sum
  const std::int64_t base = row * p.columns;
  const auto column_of = [&](int v) {
    return (std::int64_t{v} * blockDim.x + threadIdx.x) * kWidth;
  };
  const auto valid = [&](int v) { return active && column_of(v) < p.columns; };

  float s[kVectors][kWidth] = {};
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (!valid(v)) continue;
    load(p.x + base + column_of(v), s[v]);
    if (p.residual == nullptr) continue;
    float other[kWidth];
    load(p.residual + base + column_of(v), other);
#pragma unroll
    for (int e = 0; e < kWidth; ++e) s[v][e] = rounded<T>(s[v][e] + other[e]);
    store(p.sum + base + column_of(v), s[v]);
  }

  const float inverse = 1.0f / static_cast<float>(p.columns);
  if (p.centred) {
    float total = 0.0f;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) total += s[v][e];
    }
    const float mean = row_sum(total) * inverse;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) s[v][e] = valid(v) ? s[v][e] - mean : 0.0f;
    }
    if (active && threadIdx.x == 0) p.mean[row] = mean;
  }
  float squares = 0.0f;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
#pragma unroll
    for (int e = 0; e < kWidth; ++e) squares += s[v][e] * s[v][e];
  }
  const float rstd = 1.0f / sqrtf(row_sum(squares) * inverse + p.eps);
  if (active && threadIdx.x == 0) p.rstd[row] = rstd;

  const std::int64_t group = active ? row % p.groups * p.columns : 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (!valid(v)) continue;
    float w[kWidth];
    load_weights(p.weight, group + column_of(v), w);
#pragma unroll
    for (int e = 0; e < kWidth; ++e) {
      s[v][e] = rounded<T>(s[v][e] * rstd) * (w[e] + p.weight_offset);
    }
    if (p.gate != nullptr) {
      float gate[kWidth];
      load(p.gate + base + column_of(v), gate);
#pragma unroll
      for (int e = 0; e < kWidth; ++e) s[v][e] *= fast_sigmoid(gate[e]);
    }
    store(p.out + base + column_of(v), s[v]);
  }
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
    launch("norm_fwd", stream, {grid_size(p.rows, shape.rows_per_block()), shape.block()},
           norm_fwd_kernel<T, kWidth, kVectors>, p);
  });
}

}  // namespace

void register_norm_forward() {
  norm_fwd.set(DeviceType::kCuda, [](const NormForwardArgs& args) {
    dispatch_floating("norm_fwd", args.x.dtype(), [&]<class T>() { norm_forward<T>(args); });
  });
}

}  // namespace carousel::cuda
