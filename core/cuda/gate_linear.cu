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
constexpr int kRows = 8;   // of a warp
constexpr int kBlockRows = kWarps * kRows;
static_assert(kTile == kWarps);

// Both gates' outputs counted through: the first n are gate 0's.
struct Outputs {
  const float* weight[kGates];  // (n, stride), from x's first column on
  const float* d[kGates];       // (rows, n): gradients
  std::int64_t n, stride;

  __device__ std::int64_t count() const { return kGates * n; }
  /// Of the last output where there is no such.
  __device__ const float* weight_row(std::int64_t o) const {
    o = min(o, count() - 1);
    return o < n ? weight[0] + o * stride : weight[1] + (o - n) * stride;
  }
  /// 0 where there is none.
  __device__ float gradient(std::int64_t o, std::int64_t row, std::int64_t rows) const {
    if (o >= count() || row >= rows) return 0.0f;
    return o < n ? d[0][row * n + o] : d[1][row * n + (o - n)];
  }
};

template <class T>
struct Forward {
  const T* x;
  Outputs outputs;
  const float* bias[kGates];  // null: to be added to out
  float* out[kGates];
  std::int64_t rows, columns;
};

// The block's warps share the weights, which shared memory serves, and each takes rows of its own.
template <class T, int kWidth>
__global__ void __launch_bounds__(kWarps* kWarp, 2) gate_linear_fwd_kernel(Forward<T> p) {
  constexpr int kColumns = kWarp * kWidth;
  __shared__ alignas(16) float weights[2][kTile][kColumns];
  const int lane = static_cast<int>(threadIdx.x);
  const int warp = static_cast<int>(threadIdx.y);
  const std::int64_t first = std::int64_t{blockIdx.x} * kBlockRows + warp * kRows;
  const std::int64_t tile = std::int64_t{blockIdx.y} * kTile;
  const float* const weight = p.outputs.weight_row(tile + warp);
  float sum[kRows][kTile] = {};
  int buffer = 0;
  for (std::int64_t left = 0; left < p.columns; left += kColumns, buffer ^= 1) {
    const std::int64_t c = left + lane * kWidth;
    float x[kRows][kWidth] = {};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (first + r < p.rows && c < p.columns) load(p.x + (first + r) * p.columns + c, x[r]);
    }
    float w[kWidth] = {};
    if (c < p.columns) load(weight + c, w);
    store(weights[buffer][warp] + lane * kWidth, w);
    __syncthreads();  // and all are done with the other buffer
#pragma unroll
    for (int o = 0; o < kTile; ++o) {
      load(weights[buffer][o] + lane * kWidth, w);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int e = 0; e < kWidth; ++e) sum[r][o] += x[r][e] * w[e];
      }
    }
  }
  constexpr int kOwn = kRows * kTile / kWarp;  // sums that a lane finishes
  float own[kOwn] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int o = 0; o < kTile; ++o) {
      const float total = group_sum(sum[r][o]);
      if (lane == (r * kTile + o) % kWarp) own[(r * kTile + o) / kWarp] = total;
    }
  }
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const std::int64_t row = first + (i * kWarp + lane) / kTile;
    const std::int64_t o = tile + lane % kTile;
    if (row >= p.rows || o >= p.outputs.count()) continue;
    const std::int64_t n = o % p.outputs.n;
    const int gate = o < p.outputs.n ? 0 : 1;
    float& to = p.out[gate][row * p.outputs.n + n];
    to = own[i] + (p.bias[gate] != nullptr ? p.bias[gate][n] : to);
  }
}

// A thread takes kWidth columns of a warp's rows: each weight is read once for all of them, and the
// gradients of the block's rows come from shared memory.
template <class D, int kWidth>
__global__ void __launch_bounds__(kWarps* kWarp)
    gate_linear_dx_kernel(Outputs outputs, D* dx, std::int64_t rows, std::int64_t columns,
                          bool accumulate) {
  __shared__ alignas(16) float gradients[kTile][kBlockRows];
  const int thread = static_cast<int>(threadIdx.y * kWarp + threadIdx.x);
  const std::int64_t column = (std::int64_t{blockIdx.y} * kWarp + threadIdx.x) * kWidth;
  const std::int64_t block_first = std::int64_t{blockIdx.x} * kBlockRows;
  const std::int64_t first = block_first + threadIdx.y * kRows;
  float sum[kRows][kWidth] = {};
  if (accumulate && column < columns) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (first + r < rows) load(dx + (first + r) * columns + column, sum[r]);
    }
  }
  for (std::int64_t tile = 0; tile < outputs.count(); tile += kTile) {
    if (tile > 0) __syncthreads();
#pragma unroll
    for (int i = thread; i < kTile * kBlockRows; i += kWarps * kWarp) {
      gradients[i / kBlockRows][i % kBlockRows] =
          outputs.gradient(tile + i / kBlockRows, block_first + i % kBlockRows, rows);
    }
    __syncthreads();
    if (column >= columns) continue;
#pragma unroll
    for (int o = 0; o < kTile; ++o) {
      if (tile + o >= outputs.count()) break;
      float w[kWidth];
      load(outputs.weight_row(tile + o) + column, w);
      const float* const d = gradients[o] + threadIdx.y * kRows;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int e = 0; e < kWidth; ++e) sum[r][e] += d[r] * w[e];
      }
    }
  }
  if (column >= columns) return;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
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
  __shared__ alignas(16) float gradients[kBlockRows][kTile];
  __shared__ float partial[kWarps][kTile][kWidth][kWarp];
  const int thread = static_cast<int>(threadIdx.y * kWarp + threadIdx.x);
  const std::int64_t column = (std::int64_t{blockIdx.x} * kWarp + threadIdx.x) * kWidth;
  const std::int64_t begin = blockIdx.y * rows_per_chunk;
  const std::int64_t end = min(begin + rows_per_chunk, rows);
  const std::int64_t tile = std::int64_t{blockIdx.z} * kTile;
  float sum[kTile][kWidth] = {};
  for (std::int64_t base = begin; base < end; base += kBlockRows) {
    float values[kRows][kWidth] = {};  // on their way while the gradients come
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const std::int64_t r = base + i * kWarps + threadIdx.y;
      if (r < end && column < columns) load(x + r * columns + column, values[i]);
    }
    if (base > begin) __syncthreads();
#pragma unroll
    for (int i = thread; i < kTile * kBlockRows; i += kWarps * kWarp) {
      gradients[i / kTile][i % kTile] = outputs.gradient(tile + i % kTile, base + i / kTile, end);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int o = 0; o < kTile; ++o) {
        const float d = gradients[i * kWarps + threadIdx.y][o];
#pragma unroll
        for (int e = 0; e < kWidth; ++e) sum[o][e] += d * values[i][e];
      }
    }
  }
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

struct DweightSums {
  float* partial[kGates];  // (chunks, n, columns)
  float* dweight[kGates];  // (n, stride), from x's first column on; null: not wanted
  std::int64_t chunks, n, columns, stride;
};

// Adds the chunks' sums to dweight, in order.
__global__ void __launch_bounds__(kWarps* kWarp) gate_linear_sums_kernel(DweightSums p) {
  const std::int64_t size = p.n * p.columns;
  const std::int64_t at = std::int64_t{blockIdx.x} * (kWarps * kWarp) + threadIdx.x;
  float* const dweight = p.dweight[blockIdx.y];
  if (dweight == nullptr || at >= size) return;
  float sum = 0.0f;
#pragma unroll 8
  for (std::int64_t c = 0; c < p.chunks; ++c) sum += p.partial[blockIdx.y][c * size + at];
  dweight[at / p.columns * p.stride + at % p.columns] += sum;
}

Outputs describe(const GateTensors& weight, std::int64_t column) {
  Outputs outputs{};
  for (int g = 0; g < kGates; ++g) outputs.weight[g] = data<float>(weight[g]) + column;
  outputs.n = weight[0].dim(0);
  outputs.stride = weight[0].dim(1);
  return outputs;
}

// Whether every output's weights begin where four are read at once.
bool aligned(const Outputs& outputs) {
  return outputs.stride % 4 == 0 && aligned16(outputs.weight[0], outputs.weight[1]);
}

// Calls f.template operator()<kWidth>() with four columns a thread where that can be.
template <class F>
void dispatch_width(std::int64_t columns, bool aligned, F&& f) {
  if (columns % 4 == 0 && aligned) return f.template operator()<4>();
  f.template operator()<1>();
}

void forward(const GateLinearForwardArgs& args) {
  dispatch_floating("gate_linear_fwd", args.x.dtype(), [&]<class T>() {
    Forward<T> p{.x = data<T>(args.x), .outputs = describe(args.weight, args.column)};
    for (int g = 0; g < kGates; ++g) {
      p.bias[g] = data_or_null<float>(args.bias[g]);
      p.out[g] = data<float>(args.out[g]);
    }
    p.rows = args.x.dim(0);
    p.columns = args.x.dim(1);
    dispatch_width(p.columns, aligned16(p.x) && aligned(p.outputs), [&]<int kWidth>() {
      launch("gate_linear_fwd", Stream(args.x.device()),
             {dim3(grid_size(p.rows, kBlockRows), grid_size(kGates * p.outputs.n, kTile)),
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
    dispatch_width(columns, aligned16(dx) && aligned(outputs), [&]<int kWidth>() {
      launch("gate_linear_dx", stream,
             {dim3(grid_size(rows, kBlockRows), grid_size(columns, kWarp * kWidth)),
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
    const std::int64_t per_chunk = std::max<std::int64_t>((rows + wanted - 1) / wanted, kBlockRows);
    const unsigned chunks = grid_size(rows, per_chunk);
    DweightSums sums{.chunks = chunks, .n = outputs.n, .columns = columns};
    Tensor partial[kGates];
    for (int g = 0; g < kGates; ++g) {
      partial[g] = workspace(stream, chunks * outputs.n * columns);
      sums.partial[g] = partial[g].data<float>();
      sums.dweight[g] = data_or_null<float>(args.dweight[g]);
      if (sums.dweight[g] != nullptr) sums.dweight[g] += args.column;
    }
    sums.stride = outputs.stride;
    launch("gate_linear_dweight", stream,
           {dim3(tiles, chunks, grid_size(kGates * outputs.n, kTile)), dim3(kWarp, kWarps)},
           gate_linear_dweight_kernel<T, kWidth>, x, outputs, sums.partial[0], sums.partial[1],
           rows, columns, per_chunk);
    launch("gate_linear_sums", stream,
           {dim3(grid_size(outputs.n * columns, kWarps * kWarp), kGates), dim3(kWarps * kWarp)},
           gate_linear_sums_kernel, sums);
  });
}

void backward(const GateLinearBackwardArgs& args) {
  if (args.x.numel() == 0) return;
  const Stream stream(args.x.device());
  Outputs outputs = describe(args.weight, args.column);
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
