// Matrix products, the one place where all large arithmetic of linear layers happens.
#pragma once

#include <atomic>

#include "core/kernels/slot.h"
#include "core/tensor/tensor.h"

namespace carousel {

/// out = op(a)·op(b) [+ bias] or out += op(a)·op(b). Row-major; op transposes the last two
/// dimensions if the flag is set.
///   a    (M,K), or (K,M) if transpose_a        b (K,N), or (N,K) if transpose_b
///   bias (N) float32 or out's dtype, optional; only without accumulate
///   out  (M,N)
/// dtypes: a and b alike (f32, bf16, f64); out that dtype or its accumulation dtype (f32 for
/// bf16). Accumulates in at least float32. Deterministic.
struct MatmulArgs {
  Tensor a, b, bias, out;
  bool transpose_a = false, transpose_b = false;
  bool accumulate = false;  ///< out += instead of out =
};
inline constinit KernelSlot<MatmulArgs> matmul{"matmul"};

/// Whether a GPU's tensor cores may multiply float32 operands as TF32 (10 bits of mantissa) in all
/// matrix products of this process; sums stay float32. Off by default; no effect on the CPU.
inline std::atomic<bool> allow_tf32{false};

/// Bytes of scratch memory that the products on a GPU share and keep.
inline constexpr std::size_t kCudaMatmulScratch = std::size_t{32} << 20;

/// out[n] += Σ_m x[m,n] for x (M,N): the gradient of a bias. out has x's accumulation dtype.
/// Summation order depends on the number of threads alone.
struct ColumnSumArgs {
  Tensor x, out;
};
inline constinit KernelSlot<ColumnSumArgs> column_sum{"column_sum"};

}  // namespace carousel
