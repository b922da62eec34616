// Precision: x widened as it is read, products and sums in float32, dx rounded once.
#include "core/kernels/gate_linear.h"

#include "core/cuda/device.cuh"
#include "core/cuda/dispatch.h"
#include "core/cuda/kernels.h"
#include "core/cuda/launch.h"
#include "core/cuda/reduce.cuh"
#include "core/kernels/matmul.h"

namespace carousel::cuda {
namespace {

constexpr int kWarps = 8;  // of a block
constexpr int kTile = 8;   // outputs handled together, of both gates
constexpr int kDxRows = 8;

// Both gates' outputs counted through: the first n are gate 0's.
struct Outputs {
  const float* weight[kGates];  // (n, columns)
  const float* d[kGates];       // (rows, n): gradients
  std::int64_t n;

  __device__ std::int64_t count() const { return kGates * n; }
  __device__ const float* weight_row(std::int64_t o, std::int64_t columns) const {
    return o < n ? weight[0] + o * columns : weight[1] + (o - n) * columns;
  }
  /// Of row 0; the next row's is n further on.
  __device__ const float* gradient(std::int64_t o) const {
    return o < n ? d[0] + o : d[1] + (o - n);
  }
};

template <class T>
struct Forward {
  const T* x;
  Outputs outputs;
  const float* bias[kGates];
  float* out[kGates];
  std::int64_t rows, columns;
};

// A warp takes as many rows as give every lane one sum to finish: the weights, read from the cache,
// serve them all.
template <class T, int kWidth>
__global__ void __launch_bounds__(kWarps* kWarp) gate_linear_fwd_kernel(Forward<T> p) {
  constexpr int kRows = kWarp / kTile;
  const int lane = static_cast<int>(threadIdx.x);
  const std::int64_t first = (std::int64_t{blockIdx.x} * kWarps + threadIdx.y) * kRows;
  const std::int64_t tile = std::int64_t{blockIdx.y} * kTile;
  const float* weight[kTile];
#pragma unroll
  for (int o = 0; o < kTile; ++o) {
    weight[o] = p.outputs.weight_row(min(tile + o, p.outputs.count() - 1), p.columns);
  }
  float sum[kRows][kTile] = {};
  for (std::int64_t c = lane * kWidth; c < p.columns; c += kWarp * kWidth) {
    float x[kRows][kWidth] = {};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (first + r < p.rows) load(p.x + (first + r) * p.columns + c, x[r]);
    }
#pragma unroll
    for (int o = 0; o < kTile; ++o) {
      float w[kWidth];
      load(weight[o] + c, w);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int e = 0; e < kWidth; ++e) sum[r][o] += x[r][e] * w[e];
      }
    }
  }
  float own = 0.0f;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int o = 0; o < kTile; ++o) {
      const float total = group_sum(sum[r][o]);
      if (lane == r * kTile + o) own = total;
    }
  }
  const std::int64_t row = first + lane / kTile;
  const std::int64_t o = tile + lane % kTile;
  if (row >= p.rows || o >= p.outputs.count()) return;
  const std::int64_t n = o % p.outputs.n;
  const int gate = o < p.outputs.n ? 0 : 1;
  p.out[gate][row * p.outputs.n + n] = own + p.bias[gate][n];
}

// A thread takes kWidth columns of kDxRows rows: each weight is read once for all of them.
template <class D, int kWidth>
__global__ void __launch_bounds__(kWarps* kWarp)
    gate_linear_dx_kernel(Outputs outputs, D* dx, std::int64_t rows, std::int64_t columns,
                          bool accumulate) {
  const std::int64_t column = (std::int64_t{blockIdx.y} * kWarp + threadIdx.x) * kWidth;
  const std::int64_t first = (std::int64_t{blockIdx.x} * kWarps + threadIdx.y) * kDxRows;
  if (column >= columns) return;
  float sum[kDxRows][kWidth] = {};
  if (accumulate) {
#pragma unroll
    for (int r = 0; r < kDxRows; ++r) {
      if (first + r < rows) load(dx + (first + r) * columns + column, sum[r]);
    }
  }
#pragma unroll 2
  for (std::int64_t o = 0; o < outputs.count(); ++o) {
    float w[kWidth];
    load(outputs.weight_row(o, columns) + column, w);
    const float* const gradient = outputs.gradient(o);
#pragma unroll
    for (int r = 0; r < kDxRows; ++r) {
      const float d = first + r < rows ? gradient[(first + r) * outputs.n] : 0.0f;
#pragma unroll
      for (int e = 0; e < kWidth; ++e) sum[r][e] += d * w[e];
    }
  }
#pragma unroll
  for (int r = 0; r < kDxRows; ++r) {
    if (first + r < rows) store(dx + (first + r) * columns + column, sum[r]);
  }
}

// Partial sums of dweight over the chunk blockIdx.y of rows, to partial[gate] (chunks, n, columns).
// The block's warps take the rows in turn; each then adds up one output of the tile in order.
template <class T, int kWidth>
__global__ void __launch_bounds__(kWarps* kWarp)
    gate_linear_dweight_kernel(const T* x, Outputs outputs, float* partial0, float* partial1,
                               std::int64_t rows, std::int64_t columns,
                               std::int64_t rows_per_chunk) {
  static_assert(kWarps == kTile);
  const std::int64_t column = (std::int64_t{blockIdx.x} * kWarp + threadIdx.x) * kWidth;
  const std::int64_t begin = blockIdx.y * rows_per_chunk;
  const std::int64_t end = min(begin + rows_per_chunk, rows);
  const std::int64_t tile = std::int64_t{blockIdx.z} * kTile;
  const float* gradient[kTile];
#pragma unroll
  for (int o = 0; o < kTile; ++o) {
    gradient[o] = outputs.gradient(min(tile + o, outputs.count() - 1));
  }
  float sum[kTile][kWidth] = {};
  if (column < columns) {
#pragma unroll 4
    for (std::int64_t r = begin + threadIdx.y; r < end; r += kWarps) {
      float values[kWidth];
      load(x + r * columns + column, values);
#pragma unroll
      for (int o = 0; o < kTile; ++o) {
        const float d = gradient[o][r * outputs.n];
#pragma unroll
        for (int e = 0; e < kWidth; ++e) sum[o][e] += d * values[e];
      }
    }
  }
  __shared__ float partial[kWarps][kTile][kWidth][kWarp];
#pragma unroll
  for (int o = 0; o < kTile; ++o) {
#pragma unroll
    for (int e = 0; e < kWidth; ++e) partial[threadIdx.y][o][e][threadIdx.x] = sum[o][e];
  }
  __syncthreads();
  const std::int64_t o = tile + threadIdx.y;
  if (column >= columns || o >= outputs.count()) return;
  float total[kWidth] = {};
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
#pragma unroll
    for (int e = 0; e < kWidth; ++e) total[e] += partial[w][threadIdx.y][e][threadIdx.x];
  }
  float* const to = o < outputs.n ? partial0 : partial1;
  store(to + (blockIdx.y * outputs.n + o % outputs.n) * columns + column, total);
}

Outputs describe(const GateTensors& weight) {
  Outputs outputs{};
  for (int g = 0; g < kGates; ++g) outputs.weight[g] = data<float>(weight[g]);
  outputs.n = weight[0].dim(0);
  return outputs;
}

// Calls f.template operator()<kWidth>() with four columns a thread where that can be.
template <class F>
void dispatch_width(std::int64_t columns, bool aligned, F&& f) {
  if (columns % 4 == 0 && aligned) return f.template operator()<4>();
  f.template operator()<1>();
}

void forward(const GateLinearForwardArgs& args) {
  dispatch_floating("gate_linear_fwd", args.x.dtype(), [&]<class T>() {
    Forward<T> p{.x = data<T>(args.x), .outputs = describe(args.weight)};
    for (int g = 0; g < kGates; ++g) {
      p.bias[g] = data<float>(args.bias[g]);
      p.out[g] = data<float>(args.out[g]);
    }
    p.rows = args.x.dim(0);
    p.columns = args.x.dim(1);
    const bool aligned = aligned16(p.x, p.outputs.weight[0], p.outputs.weight[1]);
    dispatch_width(p.columns, aligned, [&]<int kWidth>() {
      constexpr int kRowsPerBlock = kWarps * kWarp / kTile;
      launch("gate_linear_fwd", Stream(args.x.device()),
             {dim3(grid_size(p.rows, kRowsPerBlock), grid_size(kGates * p.outputs.n, kTile)),
              dim3(kWarp, kWarps)},
             gate_linear_fwd_kernel<T, kWidth>, p);
    });
  });
}

void compute_dx(const Stream& stream, const GateLinearBackwardArgs& args, const Outputs& outputs) {
  const std::int64_t rows = args.dx.dim(0);
  const std::int64_t columns = args.dx.dim(1);
  dispatch_floating("gate_linear_bwd", args.dx.dtype(), [&]<class D>() {
    D* const dx = data<D>(args.dx);
    const bool aligned = aligned16(dx, outputs.weight[0], outputs.weight[1]);
    dispatch_width(columns, aligned, [&]<int kWidth>() {
      launch("gate_linear_dx", stream,
             {dim3(grid_size(rows, kWarps * kDxRows), grid_size(columns, kWarp * kWidth)),
              dim3(kWarp, kWarps)},
             gate_linear_dx_kernel<D, kWidth>, outputs, dx, rows, columns, args.accumulate_dx);
    });
  });
}

template <class T>
void compute_dweight(const Stream& stream, const GateLinearBackwardArgs& args,
                     const Outputs& outputs) {
  const std::int64_t rows = args.x.dim(0);
  const std::int64_t columns = args.x.dim(1);
  const T* const x = data<T>(args.x);
  dispatch_width(columns, aligned16(x), [&]<int kWidth>() {
    const unsigned tiles = grid_size(columns, kWarp * kWidth);
    const std::int64_t wanted = 4 * std::int64_t{stream.info().multiprocessors} / tiles + 1;
    const std::int64_t per_chunk =
        std::max<std::int64_t>((rows + wanted - 1) / wanted, std::int64_t{8} * kWarps);
    const unsigned chunks = grid_size(rows, per_chunk);
    Tensor partial[kGates];
    for (Tensor& t : partial) t = workspace(stream, chunks * outputs.n * columns);
    launch("gate_linear_dweight", stream,
           {dim3(tiles, chunks, grid_size(kGates * outputs.n, kTile)), dim3(kWarp, kWarps)},
           gate_linear_dweight_kernel<T, kWidth>, x, outputs, partial[0].data<float>(),
           partial[1].data<float>(), rows, columns, per_chunk);
    for (int g = 0; g < kGates; ++g) {
      if (!args.dweight[g].defined()) continue;
      add_column_sums(stream, partial[g].data<float>(), chunks, outputs.n * columns,
                      data<float>(args.dweight[g]));
    }
  });
}

void backward(const GateLinearBackwardArgs& args) {
  if (args.x.numel() == 0) return;
  const Stream stream(args.x.device());
  Outputs outputs = describe(args.weight);
  for (int g = 0; g < kGates; ++g) outputs.d[g] = data<float>(args.dout[g]);
  if (args.dx.defined()) compute_dx(stream, args, outputs);
  if (args.dweight[0].defined() || args.dweight[1].defined()) {
    dispatch_floating("gate_linear_bwd", args.x.dtype(),
                      [&]<class T>() { compute_dweight<T>(stream, args, outputs); });
  }
  for (int g = 0; g < kGates; ++g) {
    if (args.dbias[g].defined()) column_sum(stream.device(), {args.dout[g], args.dbias[g]});
  }
}

}  // namespace

void register_gate_linear() {
  gate_linear_fwd.set(DeviceType::kCuda, forward);
  gate_linear_bwd.set(DeviceType::kCuda, backward);
}

}  // namespace carousel::cuda
