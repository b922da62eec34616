// Precision: f32 and f64 multiply in their own type; bf16 operands are widened to float32 once,
// multiplied and accumulated in float32, and rounded once at the end.
#include "core/kernels/matmul.h"

#include <vector>

#include "core/base/parallel.h"
#include "core/cpu/blas.h"
#include "core/cpu/dispatch.h"
#include "core/cpu/kernels.h"
#include "core/kernels/elementwise.h"

namespace carousel::cpu {
namespace {

template <class C>
void add_bias(const Tensor& bias, C* out, std::int64_t m, std::int64_t n) {
  Tensor wide = bias;
  if (bias.dtype() != dtype_of<C>) {
    wide = Tensor::empty(bias.shape(), dtype_of<C>);
    cast(kCpu, {bias, wide});
  }
  const C* b = wide.data<C>();
  parallel_for(m, std::max<std::int64_t>(1, kElementwiseGrain / std::max<std::int64_t>(n, 1)),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i) {
#pragma omp simd
                   for (std::int64_t j = 0; j < n; ++j) out[i * n + j] += b[j];
                 }
               });
}

template <class C>
void multiply(const MatmulArgs& args, const C* a, const C* b, C* out) {
  const std::int64_t m = args.out.dim(0);
  const std::int64_t n = args.out.dim(1);
  const std::int64_t k = args.a.dim(args.transpose_a ? 0 : 1);
  gemm(args.transpose_a, args.transpose_b, m, n, k, C{1}, a, args.a.dim(1), b, args.b.dim(1),
       args.accumulate ? C{1} : C{0}, out, n);
  if (args.bias.defined()) add_bias(args.bias, out, m, n);
}

Tensor widened(const Tensor& t) {
  const RoleScope role(Role::kWorkspace);
  Tensor wide = Tensor::empty(t.shape(), DType::kF32);
  cast(kCpu, {t, wide});
  return wide;
}

void matmul_kernel(const MatmulArgs& args) {
  switch (args.a.dtype()) {
    case DType::kF32:
      return multiply(args, args.a.data<float>(), args.b.data<float>(), args.out.data<float>());
    case DType::kF64:
      return multiply(args, args.a.data<double>(), args.b.data<double>(), args.out.data<double>());
    case DType::kBF16: {
      const Tensor a = widened(args.a);
      const Tensor b = widened(args.b);
      if (args.out.dtype() == DType::kF32) {
        return multiply(args, a.data<float>(), b.data<float>(), args.out.data<float>());
      }
      const Tensor out = widened(args.out);  // carries the old values if accumulate is set
      multiply(args, a.data<float>(), b.data<float>(), out.data<float>());
      return cast(kCpu, {out, args.out});
    }
    default:
      throw InternalError("[matmul] no CPU kernel for dtype {}", name_of(args.a.dtype()));
  }
}

// Columns are split over threads, so that each sum has one owner and one order.
void column_sum_kernel(const ColumnSumArgs& args) {
  dispatch_floating("column_sum", args.x.dtype(), [&]<class T>() {
    using C = compute_t<T>;
    const T* x = args.x.data<T>();
    C* out = args.out.data<C>();
    const std::int64_t m = args.x.dim(0);
    const std::int64_t n = args.x.dim(1);
    parallel_for(n, std::max<std::int64_t>(16, kElementwiseGrain / std::max<std::int64_t>(m, 1)),
                 [&](std::int64_t begin, std::int64_t end) {
                   std::vector<C> sum(static_cast<std::size_t>(end - begin), C{0});
                   for (std::int64_t i = 0; i < m; ++i) {
                     const T* row = x + i * n + begin;
#pragma omp simd
                     for (std::int64_t j = 0; j < end - begin; ++j) {
                       sum[static_cast<std::size_t>(j)] += static_cast<C>(row[j]);
                     }
                   }
                   for (std::int64_t j = begin; j < end; ++j) {
                     out[j] += sum[static_cast<std::size_t>(j - begin)];
                   }
                 });
  });
}

}  // namespace

void register_matmul() {
  matmul.set(DeviceType::kCpu, matmul_kernel);
  column_sum.set(DeviceType::kCpu, column_sum_kernel);
}

}  // namespace carousel::cpu
