// A small matrix product that is repeated at every time step with the same right-hand side: that is
// packed once into panels, so that a step reads it straight from cache.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/cpu/blas.h"
#include "core/tensor/tensor.h"

namespace carousel::slstm {

/// out (rows, n) = a (rows, k)·R with R (k, n), or (n, k) if transposed. For use inside
/// parallel_for. The shape of the register tiles: up to 6 rows by 64 elements' worth of columns, 12
/// accumulators of 32 bytes (16 vector registers on x86-64-v3).
template <class C>
class PanelProduct {
 public:
  /// Below this many uses packing costs more than it saves, and BLAS reads r as it is.
  static constexpr std::int64_t kUsesWorthPacking = 8;

  PanelProduct(const C* r, std::int64_t k, std::int64_t n, bool transposed, std::int64_t uses)
      : r_(r), k_(k), n_(n), transposed_(transposed) {
    if (uses >= kUsesWorthPacking) pack();
  }

  /// Row stride of out, at least n.
  std::int64_t out_stride() const { return panels() * kWidth; }

  void operator()(std::int64_t rows, const C* a, std::int64_t a_stride, C* out) const {
    if (!packed_.defined()) {
      return cpu::gemm(false, transposed_, rows, n_, k_, C{1}, a, a_stride, r_,
                       transposed_ ? k_ : n_, C{0}, out, out_stride());
    }
    const std::int64_t tiles = (rows + kMaxRows - 1) / kMaxRows;
    for (std::int64_t t = 0; t < tiles; ++t) {  // tiles of nearly equal height
      const std::int64_t begin = rows * t / tiles;
      const std::int64_t height = rows * (t + 1) / tiles - begin;
      row_tile<kMaxRows>(height, a + begin * a_stride, a_stride, out + begin * out_stride());
    }
  }

 private:
  static constexpr std::int64_t kMaxRows = 6;
  static constexpr std::int64_t kLanes = 32 / static_cast<std::int64_t>(sizeof(C));
  static constexpr std::int64_t kWidth = 2 * kLanes;
  typedef C Vector __attribute__((vector_size(32)));

  std::int64_t panels() const { return (n_ + kWidth - 1) / kWidth; }

  // Panel p holds columns [p·kWidth, …) row by row, zeros beyond n.
  void pack() {
    const RoleScope role(Role::kWorkspace);
    packed_ = Tensor::zeros({panels(), k_, kWidth}, dtype_of<C>);
    C* packed = packed_.template data<C>();
    const std::int64_t row_stride = transposed_ ? 1 : n_;
    const std::int64_t column_stride = transposed_ ? k_ : 1;
    for (std::int64_t j = 0; j < n_; ++j) {
      C* column = packed + j / kWidth * k_ * kWidth + j % kWidth;
      for (std::int64_t i = 0; i < k_; ++i) {
        column[i * kWidth] = r_[i * row_stride + j * column_stride];
      }
    }
  }

  template <int kRows>
  void row_tile(std::int64_t height, const C* a, std::int64_t a_stride, C* out) const {
    if constexpr (kRows > 1) {
      if (height < kRows) return row_tile<kRows - 1>(height, a, a_stride, out);
    }
    const C* panel = packed_.template data<C>();
    for (std::int64_t p = 0; p < panels(); ++p, panel += k_ * kWidth) {
      register_tile<kRows>(a, a_stride, panel, out + p * kWidth);
    }
  }

  template <int kRows>
  void register_tile(const C* a, std::int64_t a_stride, const C* panel, C* out) const {
    Vector sum[kRows][2] = {};
    for (std::int64_t i = 0; i < k_; ++i) {
      Vector left, right;
      std::memcpy(&left, panel + i * kWidth, sizeof(Vector));
      std::memcpy(&right, panel + i * kWidth + kLanes, sizeof(Vector));
#pragma GCC unroll 6
      for (int r = 0; r < kRows; ++r) {
        sum[r][0] += a[r * a_stride + i] * left;
        sum[r][1] += a[r * a_stride + i] * right;
      }
    }
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      std::memcpy(out + r * out_stride(), &sum[r], sizeof(sum[r]));
    }
  }

  const C* r_;
  std::int64_t k_, n_;
  bool transposed_;
  Tensor packed_;
};

}  // namespace carousel::slstm
