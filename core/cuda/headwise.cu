#include "core/kernels/headwise.h"

#include "core/cuda/device.cuh"
#include "core/cuda/dispatch.h"
#include "core/cuda/gemm.h"
#include "core/cuda/kernels.h"
#include "core/cuda/launch.h"
#include "core/cuda/reduce.cuh"

namespace carousel::cuda {
namespace {

// Blocks up to 8×8 are bound by memory, not arithmetic: one thread holds a head's block in
// registers and walks over rows. Larger blocks are batched matrix products.
constexpr int kLanes = 64;  // heads
constexpr int kRows = 4;    // rows at a time

template <class T, int D>
__global__ void __launch_bounds__(kLanes* kRows)
    headwise_fwd_kernel(const T* x, const T* weight, T* y, std::int64_t rows, std::int64_t heads) {
  const std::int64_t head = std::int64_t{blockIdx.x} * kLanes + threadIdx.x;
  if (head >= heads) return;
  float w[D][D];
#pragma unroll
  for (int o = 0; o < D; ++o) load(weight + (head * D + o) * D, w[o]);
  const std::int64_t step = std::int64_t{gridDim.y} * kRows;
#pragma unroll 4
  for (std::int64_t r = std::int64_t{blockIdx.y} * kRows + threadIdx.y; r < rows; r += step) {
    float in[D];
    float out[D] = {};
    load(x + (r * heads + head) * D, in);
#pragma unroll
    for (int o = 0; o < D; ++o) {
#pragma unroll
      for (int d = 0; d < D; ++d) out[o] += w[o][d] * in[d];
    }
    store(y + (r * heads + head) * D, out);
  }
}

// dx and, into row (blockIdx.y, threadIdx.y) of partial (·, H·D·D), the weight gradient of the
// thread's rows; dx or partial may be nullptr.
template <class T, int D>
__global__ void __launch_bounds__(kLanes* kRows)
    headwise_bwd_kernel(const T* x, const T* weight, const T* dy, T* dx, float* partial,
                        std::int64_t rows, std::int64_t heads) {
  const std::int64_t head = std::int64_t{blockIdx.x} * kLanes + threadIdx.x;
  if (head >= heads) return;
  float w[D][D];
  float dw[D][D] = {};
#pragma unroll
  for (int o = 0; o < D; ++o) load(weight + (head * D + o) * D, w[o]);
  const std::int64_t step = std::int64_t{gridDim.y} * kRows;
  const std::int64_t first = std::int64_t{blockIdx.y} * kRows + threadIdx.y;
#pragma unroll 2
  for (std::int64_t r = first; r < rows; r += step) {
    float in[D];
    float d[D];
    float out[D] = {};
    load(x + (r * heads + head) * D, in);
    load(dy + (r * heads + head) * D, d);
#pragma unroll
    for (int o = 0; o < D; ++o) {
#pragma unroll
      for (int i = 0; i < D; ++i) {
        dw[o][i] += d[o] * in[i];
        out[i] += w[o][i] * d[o];
      }
    }
    if (dx != nullptr) store(dx + (r * heads + head) * D, out);
  }
  if (partial == nullptr) return;
  float* to = partial + (first * heads + head) * D * D;
#pragma unroll
  for (int o = 0; o < D; ++o) store(to + o * D, dw[o]);
}

// The grid of the register kernels: enough blocks to fill the device, each with several rows.
dim3 register_grid(const Stream& stream, std::int64_t rows, std::int64_t heads) {
  const unsigned tiles = grid_size(heads, kLanes);
  const std::int64_t wanted =
      std::max<std::int64_t>(1, 8 * std::int64_t{stream.info().multiprocessors} / tiles);
  return dim3(tiles, grid_size(rows, kRows * ((rows + kRows * wanted - 1) / (kRows * wanted))));
}

// True if the register kernels serve these sizes: f gets the block's size as a template argument.
template <class T, class F>
bool in_registers(std::int64_t out, std::int64_t in, bool aligned, F&& f) {
  if (out != in || !aligned) return false;
  if (out == 4) return f.template operator()<4>(), true;
  if (out == 8) return f.template operator()<8>(), true;
  return false;
}

struct Sizes {
  std::int64_t rows, heads, out, in;
  explicit Sizes(const Tensor& x, const Tensor& weight)
      : rows(x.dim(0)), heads(weight.dim(0)), out(weight.dim(1)), in(weight.dim(2)) {}
};

void headwise_forward(const HeadwiseForwardArgs& args) {
  const Stream stream(args.y.device());
  const Sizes n(args.x, args.weight);
  if (n.rows == 0 || n.heads == 0) return;
  dispatch_floating("headwise_fwd", args.x.dtype(), [&]<class T>() {
    const T* x = data<T>(args.x);
    const T* weight = data<T>(args.weight);
    T* y = data<T>(args.y);
    const bool done = in_registers<T>(n.out, n.in, aligned16(x, weight, y), [&]<int D>() {
      launch("headwise_fwd", stream, {register_grid(stream, n.rows, n.heads), dim3(kLanes, kRows)},
             headwise_fwd_kernel<T, D>, x, weight, y, n.rows, n.heads);
    });
    if (done) return;
    gemm(stream,
         {.m = n.rows,
          .n = n.out,
          .k = n.in,
          .transpose_b = true,
          .dtype = args.x.dtype(),
          .out_dtype = args.y.dtype(),
          .lda = n.heads * n.in,
          .ldb = n.in,
          .ldc = n.heads * n.out,
          .batch = n.heads,
          .stride_a = n.in,
          .stride_b = n.out * n.in,
          .stride_c = n.out},
         x, weight, y);
  });
}

// The batched products of the backward: dx = dy·W and dW += dyᵀ·x, a head each.
void headwise_backward_products(const Stream& stream, const HeadwiseBackwardArgs& args,
                                const Sizes& n) {
  if (args.dx.defined()) {
    gemm(stream,
         {.m = n.rows,
          .n = n.in,
          .k = n.out,
          .dtype = args.x.dtype(),
          .out_dtype = args.x.dtype(),
          .lda = n.heads * n.out,
          .ldb = n.in,
          .ldc = n.heads * n.in,
          .batch = n.heads,
          .stride_a = n.out,
          .stride_b = n.out * n.in,
          .stride_c = n.in},
         args.dy.raw(), args.weight.raw(), args.dx.raw());
  }
  if (args.dweight.defined()) {
    gemm(stream,
         {.m = n.out,
          .n = n.in,
          .k = n.rows,
          .transpose_a = true,
          .dtype = args.x.dtype(),
          .out_dtype = DType::kF32,
          .lda = n.heads * n.out,
          .ldb = n.heads * n.in,
          .ldc = n.in,
          .batch = n.heads,
          .stride_a = n.out,
          .stride_b = n.in,
          .stride_c = n.out * n.in,
          .accumulate = true},
         args.dy.raw(), args.x.raw(), args.dweight.raw());
  }
}

void headwise_backward(const HeadwiseBackwardArgs& args) {
  const Stream stream(args.dy.device());
  const Sizes n(args.x, args.weight);
  if (n.rows == 0 || n.heads == 0) return;
  dispatch_floating("headwise_bwd", args.x.dtype(), [&]<class T>() {
    const T* x = data<T>(args.x);
    const T* weight = data<T>(args.weight);
    const T* dy = data<T>(args.dy);
    T* dx = data_or_null<T>(args.dx);
    const bool done = in_registers<T>(n.out, n.in, aligned16(x, weight, dy, dx), [&]<int D>() {
      const dim3 grid = register_grid(stream, n.rows, n.heads);
      const std::int64_t parts = std::int64_t{grid.y} * kRows;
      const std::int64_t elements = n.heads * D * D;
      Tensor partial;
      if (args.dweight.defined()) partial = workspace(stream, parts * elements);
      launch("headwise_bwd", stream, {grid, dim3(kLanes, kRows)}, headwise_bwd_kernel<T, D>, x,
             weight, dy, dx, partial.data_or_null<float>(), n.rows, n.heads);
      if (args.dweight.defined()) {
        add_column_sums(stream, partial.data<float>(), parts, elements, data<float>(args.dweight));
      }
    });
    if (!done) headwise_backward_products(stream, args, n);
  });
}

}  // namespace

void register_headwise() {
  headwise_fwd.set(DeviceType::kCuda, headwise_forward);
  headwise_bwd.set(DeviceType::kCuda, headwise_backward);
}

}  // namespace carousel::cuda
