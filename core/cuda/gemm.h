// Matrix products by cuBLASLt, on raw row-major pointers.
#pragma once

#include <cstdint>

#include "core/cuda/stream.h"
#include "core/tensor/dtype.h"

namespace carousel::cuda {

/// out (M,N) = op(a)·op(b) [+ bias (N)] [+ out], `batch` times at fixed strides.
///   a as stored (M,K), or (K,M) if transpose_a; b (K,N), or (N,K) if transpose_b
/// lda, ldb, ldc are the row strides as stored, in elements.
struct Gemm {
  std::int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;
  DType dtype = DType::kBF16;      ///< of a and b: f32 or bf16
  DType out_dtype = DType::kBF16;  ///< dtype, or f32
  std::int64_t lda = 0, ldb = 0, ldc = 0;
  std::int64_t batch = 1;
  std::int64_t stride_a = 0, stride_b = 0, stride_c = 0;  ///< elements from one product to the next
  bool accumulate = false;
  bool operator==(const Gemm&) const = default;
};

/// Runs the product, asynchronously and deterministically (no atomics; the algorithm is cuBLASLt's
/// first choice for the shape, never a timing's). f32 operands are multiplied in true float32
/// unless allow_tf32 is set, bf16 ones accumulate in float32. `bias` has out_dtype or is nullptr.
/// Plans are cached by shape and alignment; scratch memory is one buffer a device, so that the call
/// can be captured in a graph once the shape is known. K = 0 is a sum of no terms.
void gemm(const Stream& stream, const Gemm& problem, const void* a, const void* b, void* out,
          const void* bias = nullptr);

}  // namespace carousel::cuda
