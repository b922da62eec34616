#include "core/cpu/blas.h"

#include <cblas.h>

#include <limits>

#include "core/base/error.h"

namespace carousel::cpu {
namespace {

blasint blas_int(std::int64_t n) {
  CAROUSEL_CHECK(n >= 0 && n <= std::numeric_limits<blasint>::max(),
                 "matrix dimension {} does not fit OpenBLAS's integers", n);
  return static_cast<blasint>(n);
}

CBLAS_TRANSPOSE transpose(bool t) { return t ? CblasTrans : CblasNoTrans; }

}  // namespace

void gemm(bool trans_a, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
          const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c,
          std::int64_t ldc) {
  if (m == 0 || n == 0) return;
  cblas_sgemm(CblasRowMajor, transpose(trans_a), transpose(trans_b), blas_int(m), blas_int(n),
              blas_int(k), alpha, a, blas_int(lda), b, blas_int(ldb), beta, c, blas_int(ldc));
}

void gemm(bool trans_a, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, double alpha,
          const double* a, std::int64_t lda, const double* b, std::int64_t ldb, double beta,
          double* c, std::int64_t ldc) {
  if (m == 0 || n == 0) return;
  cblas_dgemm(CblasRowMajor, transpose(trans_a), transpose(trans_b), blas_int(m), blas_int(n),
              blas_int(k), alpha, a, blas_int(lda), b, blas_int(ldb), beta, c, blas_int(ldc));
}

std::string blas_description() {
  const char* threading[] = {"sequential", "pthreads", "OpenMP"};
  return fmt::format("{} ({})", openblas_get_config(), threading[openblas_get_parallel() % 3]);
}

}  // namespace carousel::cpu
