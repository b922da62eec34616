#include "core/cuda/kernels.h"
#include "core/cuda/norm.cuh"
#include "core/cuda/reduce.cuh"

namespace carousel::cuda {
namespace {

// As many as fit at once in the common shapes.
constexpr std::int64_t kBlocksPerMultiprocessor = 3;

template <class T>
struct NormBackward {
  const T *x, *gate, *dout, *dsum;
  Weights<T> weight;
  float weight_offset;
  const float *mean, *rstd;  // mean is nullptr for RMSNorm
  T *dx, *dgate;
  float* dweight;  // (parts, groups·columns) partial sums, or nullptr
  std::int64_t tokens, columns, groups;
  std::int64_t parts;  // blocks a group
};

// At a row's column: the normed values, and the gradient of those as the weights (and the gate)
// give it; dweight gets what the column adds to it. Writes dgate.
template <int kWidth, class T>
__device__ void differentiate(const NormBackward<T>& p, std::int64_t row, std::int64_t column,
                              float mean, float rstd, float (&normed)[kWidth], float (&d)[kWidth],
                              float (&dweight)[kWidth]) {
  const std::int64_t at = row * p.columns + column;
  float w[kWidth];
  load(p.x + at, normed);
  load(p.dout + at, d);
  load_weights(p.weight, row % p.groups * p.columns + column, w);
#pragma unroll
  for (int e = 0; e < kWidth; ++e) {
    w[e] += p.weight_offset;
    normed[e] = (normed[e] - mean) * rstd;
  }
  if (p.gate != nullptr) {
    float dgate[kWidth];
    load(p.gate + at, dgate);
#pragma unroll
    for (int e = 0; e < kWidth; ++e) {
      const float sigma = fast_sigmoid(dgate[e]);
      dgate[e] = d[e] * normed[e] * w[e] * sigma * (1.0f - sigma);
      d[e] *= sigma;
    }
    store(p.dgate + at, dgate);
  }
#pragma unroll
  for (int e = 0; e < kWidth; ++e) {
    dweight[e] += d[e] * normed[e];
    d[e] *= w[e];
  }
}

// dx from the means over the row of d·normed and of d (0 for RMSNorm).
template <int kWidth, class T>
__device__ void write_dx(const NormBackward<T>& p, std::int64_t at, float rstd, float dot,
                         float mean_d, const float (&normed)[kWidth], const float (&d)[kWidth]) {
  float dx[kWidth] = {};
  if (p.dsum != nullptr) load(p.dsum + at, dx);
#pragma unroll
  for (int e = 0; e < kWidth; ++e) dx[e] += rstd * (d[e] - mean_d - normed[e] * dot);
  store(p.dx + at, dx);
}

// A block serves one group and every parts-th set of its rows, so that each thread sums the weight
// gradient of its own columns in registers.
template <class T, int kWidth, int kVectors>
__global__ void __launch_bounds__(kNormThreads, kVectors <= 2 || kWidth * kVectors <= 4 ? 3 : 1)
    norm_bwd_kernel(NormBackward<T> p) {
  extern __shared__ float combined[];
  const std::int64_t group = blockIdx.x % p.groups;
  const std::int64_t part = blockIdx.x / p.groups;
  const std::int64_t step = p.parts * blockDim.y;
  const float inverse = 1.0f / static_cast<float>(p.columns);
  const auto column_of = [&](int v) {
    return (std::int64_t{v} * blockDim.x + threadIdx.x) * kWidth;
  };
  float dweight[kVectors][kWidth] = {};

  for (std::int64_t first = part * blockDim.y; first < p.tokens; first += step) {
    const std::int64_t token = first + threadIdx.y;
    const bool active = token < p.tokens;  // the others still take part in row_sum
    const std::int64_t row = token * p.groups + group;
    const float mean = active && p.mean != nullptr ? p.mean[row] : 0.0f;
    const float rstd = active ? p.rstd[row] : 0.0f;
    float normed[kVectors][kWidth] = {};
    float d[kVectors][kWidth] = {};
    float dot = 0.0f;
    float total = 0.0f;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (!active || column_of(v) >= p.columns) continue;
      differentiate(p, row, column_of(v), mean, rstd, normed[v], d[v], dweight[v]);
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        dot += d[v][e] * normed[v][e];
        total += d[v][e];
      }
    }
    dot = row_sum(dot) * inverse;
    total = p.mean != nullptr ? row_sum(total) * inverse : 0.0f;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (!active || column_of(v) >= p.columns) continue;
      write_dx(p, row * p.columns + column_of(v), rstd, dot, total, normed[v], d[v]);
    }
  }
  if (p.dweight == nullptr) return;

  // The block's rows, added up in order.
  float* out = p.dweight + (part * p.groups + group) * p.columns;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (column_of(v) >= p.columns) continue;
    float* to = combined + threadIdx.y * p.columns + column_of(v);
#pragma unroll
    for (int e = 0; e < kWidth; ++e) to[e] = dweight[v][e];
  }
  __syncthreads();
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  for (std::int64_t c = thread; c < p.columns; c += blockDim.x * blockDim.y) {
    float sum = 0.0f;
    for (unsigned y = 0; y < blockDim.y; ++y) sum += combined[y * p.columns + c];
    out[c] = sum;
  }
}

// The same for rows of any length, a row a block at a time: each of two passes reads the row, and
// the part's weight gradient grows in its memory.
template <class T, int kWidth>
__global__ void __launch_bounds__(kNormThreads) norm_bwd_streamed_kernel(NormBackward<T> p) {
  const std::int64_t group = blockIdx.x % p.groups;
  const std::int64_t part = blockIdx.x / p.groups;
  const float inverse = 1.0f / static_cast<float>(p.columns);
  float* const dweight =
      p.dweight == nullptr ? nullptr : p.dweight + (part * p.groups + group) * p.columns;
  const auto for_columns = [&](auto&& f) {
    for (std::int64_t c = std::int64_t{threadIdx.x} * kWidth; c < p.columns;
         c += std::int64_t{kNormThreads} * kWidth) {
      f(c);
    }
  };
  for (std::int64_t token = part; token < p.tokens; token += p.parts) {
    const std::int64_t row = token * p.groups + group;
    const float mean = p.mean != nullptr ? p.mean[row] : 0.0f;
    const float rstd = p.rstd[row];
    float normed[kWidth];
    float d[kWidth];
    float dot = 0.0f;
    float total = 0.0f;
    for_columns([&](std::int64_t c) {
      float sum[kWidth] = {};
      if (dweight != nullptr && token != part) load(dweight + c, sum);
      differentiate(p, row, c, mean, rstd, normed, d, sum);
      if (dweight != nullptr) store(dweight + c, sum);
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        dot += d[e] * normed[e];
        total += d[e];
      }
    });
    dot = row_sum(dot) * inverse;
    total = p.mean != nullptr ? row_sum(total) * inverse : 0.0f;
    for_columns([&](std::int64_t c) {
      float unused[kWidth] = {};
      differentiate(p, row, c, mean, rstd, normed, d, unused);
      write_dx(p, row * p.columns + c, rstd, dot, total, normed, d);
    });
  }
}

template <class T>
void norm_backward(const NormBackwardArgs& args) {
  const Stream stream(args.dx.device());
  NormBackward<T> p{};
  p.x = data<T>(args.x);
  p.gate = data_or_null<T>(args.gate);
  p.dout = data<T>(args.dout);
  p.dsum = data_or_null<T>(args.dsum);
  p.weight = Weights<T>::of(args.weight);
  p.weight_offset = weight_offset(args.options);
  p.mean = args.options.kind == NormKind::kLayer ? data<float>(args.mean) : nullptr;
  p.rstd = data<float>(args.rstd);
  p.dx = data<T>(args.dx);
  p.dgate = data_or_null<T>(args.dgate);
  p.columns = args.x.dim(1);
  if (args.x.numel() == 0) return;
  p.groups = args.weight.numel() / p.columns;
  p.tokens = args.x.dim(0) / p.groups;
  const bool aligned =
      aligned16(p.weight.narrow, p.weight.wide, p.x, p.gate, p.dout, p.dsum, p.dx, p.dgate);
  const NormShape shape = norm_shape(p.columns, kVector<T>, aligned);
  const std::int64_t rows_per_block = shape.rows_per_block();
  const std::int64_t blocks =
      kBlocksPerMultiprocessor * std::int64_t{stream.info().multiprocessors};
  p.parts = std::clamp<std::int64_t>(blocks / p.groups, 1,
                                     (p.tokens + rows_per_block - 1) / rows_per_block);
  Tensor partial;
  std::size_t shared = 0;
  if (args.dweight.defined()) {
    partial = workspace(stream, p.parts * args.weight.numel());
    p.dweight = partial.data<float>();
    if (!shape.streamed()) {
      shared = static_cast<std::size_t>(rows_per_block * p.columns) * sizeof(float);
    }
  }
  dispatch_norm_shape<T>(shape, [&]<int kWidth, int kVectors>() {
    const LaunchShape grid{grid_size(p.parts * p.groups, 1), shape.block(), shared};
    if constexpr (kVectors == 0) {
      launch("norm_bwd", stream, grid, norm_bwd_streamed_kernel<T, kWidth>, p);
    } else {
      launch("norm_bwd", stream, grid, norm_bwd_kernel<T, kWidth, kVectors>, p);
    }
  });
  if (args.dweight.defined()) {
    add_column_sums(stream, p.dweight, p.parts, args.weight.numel(), data<float>(args.dweight));
  }
}

}  // namespace

void register_norm_backward() {
  norm_bwd.set(DeviceType::kCuda, [](const NormBackwardArgs& args) {
    dispatch_floating("norm_bwd", args.x.dtype(), [&]<class T>() { norm_backward<T>(args); });
  });
}

}  // namespace carousel::cuda
