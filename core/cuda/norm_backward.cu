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
    const std::int64_t base = row * p.columns;
    const float mean = active && p.mean != nullptr ? p.mean[row] : 0.0f;
    const float rstd = active ? p.rstd[row] : 0.0f;
    float normed[kVectors][kWidth] = {};
    float d[kVectors][kWidth] = {};  // gradient of the normed values
    float dot = 0.0f;
    float total = 0.0f;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const std::int64_t column = column_of(v);
      if (!active || column >= p.columns) continue;
      float w[kWidth];
      load(p.x + base + column, normed[v]);
      load(p.dout + base + column, d[v]);
      load_weights(p.weight, group * p.columns + column, w);
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        w[e] += p.weight_offset;
        normed[v][e] = (normed[v][e] - mean) * rstd;
      }
      if (p.gate != nullptr) {
        float dgate[kWidth];
        load(p.gate + base + column, dgate);
#pragma unroll
        for (int e = 0; e < kWidth; ++e) {
          const float sigma = fast_sigmoid(dgate[e]);
          dgate[e] = d[v][e] * normed[v][e] * w[e] * sigma * (1.0f - sigma);
          d[v][e] *= sigma;
        }
        store(p.dgate + base + column, dgate);
      }
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        dweight[v][e] += d[v][e] * normed[v][e];
        d[v][e] *= w[e];
        dot += d[v][e] * normed[v][e];
        total += d[v][e];
      }
    }
    dot = row_sum(dot) * inverse;
    total = p.mean != nullptr ? row_sum(total) * inverse : 0.0f;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const std::int64_t column = column_of(v);
      if (!active || column >= p.columns) continue;
      float dx[kWidth] = {};
      if (p.dsum != nullptr) load(p.dsum + base + column, dx);
#pragma unroll
      for (int e = 0; e < kWidth; ++e) dx[e] += rstd * (d[v][e] - total - normed[v][e] * dot);
      store(p.dx + base + column, dx);
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
    shared = static_cast<std::size_t>(rows_per_block * p.columns) * sizeof(float);
  }
  dispatch_norm_shape<T>(shape, [&]<int kWidth, int kVectors>() {
    launch("norm_bwd", stream, {grid_size(p.parts * p.groups, 1), shape.block(), shared},
           norm_bwd_kernel<T, kWidth, kVectors>, p);
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
