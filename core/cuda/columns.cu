// Copies of columns, the learnable skip, and the bias of block-diagonal linear layers.
#include "core/cuda/device.cuh"
#include "core/cuda/dispatch.h"
#include "core/cuda/kernels.h"
#include "core/cuda/launch.h"
#include "core/cuda/reduce.cuh"
#include "core/kernels/headwise.h"

namespace carousel::cuda {
namespace {

constexpr int kThreads = 256;

// Strides, offsets and the width count units of the access.
template <class Unit>
__global__ void __launch_bounds__(kThreads)
    copy_columns_kernel(const Unit* from, Unit* to, std::int64_t rows, std::int64_t from_stride,
                        std::int64_t to_stride, std::int64_t width) {
  const std::int64_t row = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    to[row * to_stride + i] = from[row * from_stride + i];
  }
}

// A block of `lanes` units of one row times as many rows as make kThreads threads.
dim3 row_block(std::int64_t units) {
  unsigned lanes = 1;
  while (lanes < kThreads && lanes < units) lanes *= 2;
  return dim3(lanes, kThreads / lanes);
}

void copy_columns_tensor(const CopyColumnsArgs& args) {
  const auto size = static_cast<std::int64_t>(size_of(args.x.dtype()));
  const std::int64_t rows = args.x.dim(0);
  if (rows == 0 || args.columns == 0) return;
  const Stream stream(args.out.device());
  const auto* from = static_cast<const std::byte*>(args.x.raw()) + args.x_column * size;
  auto* to = static_cast<std::byte*>(args.out.raw()) + args.out_column * size;
  const std::int64_t from_bytes = args.x.dim(1) * size;
  const std::int64_t to_bytes = args.out.dim(1) * size;
  const std::int64_t bytes = args.columns * size;
  const auto copy = [&]<class Unit>() {
    constexpr auto kUnit = static_cast<std::int64_t>(sizeof(Unit));
    const dim3 block = row_block(bytes / kUnit);
    launch("copy_columns", stream, {grid_size(rows, block.y), block}, copy_columns_kernel<Unit>,
           reinterpret_cast<const Unit*>(from), reinterpret_cast<Unit*>(to), rows,
           from_bytes / kUnit, to_bytes / kUnit, bytes / kUnit);
  };
  // The largest unit that divides every address, stride and width.
  const auto all = reinterpret_cast<std::uintptr_t>(from) | reinterpret_cast<std::uintptr_t>(to) |
                   static_cast<std::uintptr_t>(from_bytes | to_bytes | bytes);
  if (all % 16 == 0) return copy.template operator()<uint4>();
  if (all % 4 == 0) return copy.template operator()<std::uint32_t>();
  if (all % 2 == 0) return copy.template operator()<std::uint16_t>();
  copy.template operator()<std::uint8_t>();
}

// y = a·scale + b.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    skip_fwd_kernel(const T* a, Weights<T> scale, const T* b, T* y, std::int64_t rows,
                    std::int64_t columns) {
  const std::int64_t row = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  for (std::int64_t c = std::int64_t{threadIdx.x} * N; c < columns;
       c += std::int64_t{blockDim.x} * N) {
    const std::int64_t i = row * columns + c;
    float product[N];
    float factor[N];
    float term[N];
    load(a + i, product);
    load_weights(scale, c, factor);
    load(b + i, term);
#pragma unroll
    for (int e = 0; e < N; ++e) product[e] = product[e] * factor[e] + term[e];
    store(y + i, product);
  }
}

// y = x + bias.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    add_bias_kernel(const T* x, Weights<T> bias, T* y, std::int64_t rows, std::int64_t columns) {
  const std::int64_t row = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  for (std::int64_t c = std::int64_t{threadIdx.x} * N; c < columns;
       c += std::int64_t{blockDim.x} * N) {
    const std::int64_t i = row * columns + c;
    float value[N];
    float term[N];
    load(x + i, value);
    load_weights(bias, c, term);
#pragma unroll
    for (int e = 0; e < N; ++e) value[e] += term[e];
    store(y + i, value);
  }
}

// The term dy·a of dscale; writes da = dy·scale on the way.
template <class T>
struct SkipTerm {
  const T *a, *dy;
  Weights<T> scale;
  T* da;
  std::int64_t columns;
  template <int N>
  __device__ void operator()(std::int64_t row, std::int64_t column, float (&sum)[N]) const {
    const std::int64_t i = row * columns + column;
    float d[N];
    float other[N];
    load(dy + i, d);
    load(a + i, other);
#pragma unroll
    for (int e = 0; e < N; ++e) sum[e] += d[e] * other[e];
    load_weights(scale, column, other);
#pragma unroll
    for (int e = 0; e < N; ++e) d[e] *= other[e];
    store(da + i, d);
  }
};

template <class T>
bool aligned_operand(const T* pointer) {
  return aligned16(pointer);
}
template <class T>
bool aligned_operand(const Weights<T>& weights) {
  return aligned16(weights.narrow, weights.wide);
}

// Runs a kernel over the rows of `out` and its operands (pointers and weights): `vectors`, which
// takes kVector<T> elements at a time, where the rows and all addresses allow it, else `elements`.
template <class T, class Kernel, class... Operands>
void launch_rows(const char* name, const Tensor& out, Kernel* vectors, Kernel* elements,
                 const Operands&... operands) {
  const Stream stream(out.device());
  const std::int64_t rows = out.dim(0);
  const std::int64_t columns = out.dim(1);
  const bool whole = columns % kVector<T> == 0 && (aligned_operand(operands) && ...);
  const dim3 block = row_block(whole ? columns / kVector<T> : columns);
  launch(name, stream, {grid_size(rows, block.y), block}, whole ? vectors : elements, operands...,
         rows, columns);
}

void skip_forward(const SkipForwardArgs& args) {
  dispatch_floating("skip_fwd", args.a.dtype(), [&]<class T>() {
    launch_rows<T>("skip_fwd", args.y, skip_fwd_kernel<T, kVector<T>>, skip_fwd_kernel<T, 1>,
                   data<T>(args.a), Weights<T>::of(args.scale), data<T>(args.b), data<T>(args.y));
  });
}

void add_bias(const AddBiasArgs& args) {
  dispatch_floating("add_bias_fwd", args.x.dtype(), [&]<class T>() {
    launch_rows<T>("add_bias_fwd", args.y, add_bias_kernel<T, kVector<T>>, add_bias_kernel<T, 1>,
                   data<T>(args.x), Weights<T>::of(args.bias), data<T>(args.y));
  });
}

void skip_backward(const SkipBackwardArgs& args) {
  dispatch_floating("skip_bwd", args.a.dtype(), [&]<class T>() {
    const Stream stream(args.dy.device());
    const std::int64_t columns = args.a.dim(1);
    const SkipTerm<T> term{data<T>(args.a), data<T>(args.dy), Weights<T>::of(args.scale),
                           data<T>(args.da), columns};
    Tensor out = args.dscale;
    if (!out.defined()) {  // the sums are made all the same, for nobody
      out = workspace(stream, columns);
      out.zero_();
    }
    float* dscale = data<float>(out);
    if (columns % kVector<T> == 0 &&
        aligned16(term.a, term.dy, term.scale.narrow, term.scale.wide, term.da)) {
      reduce_columns<kVector<T>>("skip_bwd", stream, term, args.a.dim(0), columns, dscale);
    } else {
      reduce_columns<1>("skip_bwd", stream, term, args.a.dim(0), columns, dscale);
    }
  });
}

}  // namespace

void register_columns() {
  copy_columns.set(DeviceType::kCuda, copy_columns_tensor);
  skip_fwd.set(DeviceType::kCuda, skip_forward);
  skip_bwd.set(DeviceType::kCuda, skip_backward);
  add_bias_fwd.set(DeviceType::kCuda, add_bias);
}

}  // namespace carousel::cuda
