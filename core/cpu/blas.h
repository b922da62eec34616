// General matrix multiplication on raw row-major pointers, by OpenBLAS. For CPU kernels only.
#pragma once

#include <cstdint>
#include <string>

namespace carousel::cpu {

/// c (m,n) = alpha·op(a)·op(b) + beta·c. lda, ldb and ldc are the row strides as stored: a is
/// (m,k), or (k,m) if trans_a. beta = 0 overwrites c, even NaN. Uses all threads at top level and
/// the calling thread alone inside parallel_for. Deterministic for a given number of threads.
void gemm(bool trans_a, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
          const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c,
          std::int64_t ldc);
void gemm(bool trans_a, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, double alpha,
          const double* a, std::int64_t lda, const double* b, std::int64_t ldb, double beta,
          double* c, std::int64_t ldc);

/// OpenBLAS's version, kernel and threading, for `carousel doctor`.
std::string blas_description();

}  // namespace carousel::cpu
