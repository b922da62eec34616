// 64 × 64 tiles for the kernels that run everywhere from sm_80 on: tensor-core products of bf16,
// and of float32 as three tf32 products each, which is accurate to float32. 128 threads; warp w
// owns rows 16w … 16w + 15 of every product, in mma's accumulator layout.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "layers/mlstm/cuda/warp.cuh"

namespace carousel::mlstm::cuda {

inline constexpr int kTile = 64;
inline constexpr int kTileThreads = 128;

/// A tile in shared memory, rows padded by 16 bytes against bank conflicts.
template <class T>
struct SharedTile {
  static constexpr int kPitch = kTile + 16 / static_cast<int>(sizeof(T));
  alignas(16) T x[kTile * kPitch];

  __device__ T* row(int r) { return x + r * kPitch; }
  __device__ const T* row(int r) const { return x + r * kPitch; }
};

/// Where a tile comes from: `rows` × `columns` valid elements, rows `stride` elements apart; the
/// rest of the 64 × 64 is zero. `vectors`: address, stride and columns allow 16-byte loads.
template <class T>
struct TileSource {
  const T* data;
  std::int64_t stride;
  int rows, columns;
  bool vectors;
};

/// Whether rows of `width` elements of tensors at these addresses can be read 16 bytes at a time.
template <class T, class... P>
bool takes_vectors(int width, const P*... data) {
  return width % Vector<T>::kSize == 0 &&
         ((reinterpret_cast<std::uintptr_t>(data) % 16 == 0) && ...);
}

/// Loads a tile, row r times weight(r), rounded to T. Ends before a __syncthreads().
template <class T, class Weight>
__device__ void load_tile(SharedTile<T>& to, const TileSource<T>& from, Weight&& weight) {
  const int thread = static_cast<int>(threadIdx.x);
  if (from.vectors) {
    constexpr int kSize = Vector<T>::kSize;
    constexpr int kPerRow = kTile / kSize;
#pragma unroll
    for (int i = 0; i < kTile * kPerRow / kTileThreads; ++i) {
      const int at = thread + i * kTileThreads;
      const int r = at / kPerRow;
      const int c = at % kPerRow * kSize;
      Vector<T> v{};
      if (r < from.rows && c < from.columns) {
        v = *reinterpret_cast<const Vector<T>*>(from.data + r * from.stride + c);
        const float w = weight(r);
#pragma unroll
        for (int e = 0; e < kSize; ++e) v.x[e] = from_float<T>(w * to_float(v.x[e]));
      }
      *reinterpret_cast<Vector<T>*>(to.row(r) + c) = v;
    }
  } else {
    for (int at = thread; at < kTile * kTile; at += kTileThreads) {
      const int r = at / kTile;
      const int c = at % kTile;
      const bool inside = r < from.rows && c < from.columns;
      to.row(r)[c] =
          from_float<T>(inside ? weight(r) * to_float(from.data[r * from.stride + c]) : 0.0f);
    }
  }
}
template <class T>
__device__ void load_tile(SharedTile<T>& to, const TileSource<T>& from) {
  load_tile(to, from, [](int) { return 1.0f; });
}

/// A thread's accumulators of its warp's 16 rows: x[j][2h + e] is row lane / 4 + 8h, column
/// column(j) + e.
template <int columns>
struct WarpAccumulators {
  float x[columns / 8][4] = {};

  static __device__ int column(int j) { return 8 * j + 2 * (static_cast<int>(threadIdx.x) % 4); }

  /// f(element, j, h, e).
  template <class F>
  __device__ void for_each(F&& f) {
#pragma unroll
    for (int j = 0; j < columns / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) f(x[j][i], j, i / 2, i % 2);
    }
  }
};

/// A 64 × 64 product's accumulators: of row row(h).
struct Accumulators : WarpAccumulators<kTile> {
  static __device__ int row(int h) {
    const int thread = static_cast<int>(threadIdx.x);
    return 16 * (thread / 32) + thread % 32 / 4 + 8 * h;
  }
  __device__ void scale_rows(float first, float second) {
    for_each([&](float& v, int, int h, int) { v *= h == 0 ? first : second; });
  }
};

namespace detail {

template <bool transposed>
__device__ __forceinline__ void load_matrices(std::uint32_t (&r)[4], const void* row) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  }
}

__device__ __forceinline__ std::uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

// D (16 × 8) += A (16 × 16) · B (16 × 8).
__device__ __forceinline__ void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                         std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7},"
      " {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A float32 as the sum of two tf32 numbers, exact to 2^-22.
struct Split {
  std::uint32_t high, low;

  __device__ explicit Split(float x) {
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(high) : "f"(x));
    const float rest = x - __uint_as_float(high);
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(low) : "f"(rest));
  }
};

__device__ __forceinline__ void mma_tf32(float (&d)[4], std::uint32_t a0, std::uint32_t a1,
                                         std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                                         std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7},"
      " {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// D (16 × 8) += A (16 × 8) · B (8 × 8), the small parts first.
__device__ __forceinline__ void mma_float(float (&d)[4], const Split (&a)[4], const Split (&b)[2]) {
  mma_tf32(d, a[0].low, a[1].low, a[2].low, a[3].low, b[0].high, b[1].high);
  mma_tf32(d, a[0].high, a[1].high, a[2].high, a[3].high, b[0].low, b[1].low);
  mma_tf32(d, a[0].high, a[1].high, a[2].high, a[3].high, b[0].high, b[1].high);
}

// acc += A (16 rows × 16 at k) · B, with B's rows 16k … stored [k][n], or [n][k] if b_rows_are_n.
template <bool b_rows_are_n>
__device__ void multiply_step(Accumulators& acc, const std::uint32_t (&a)[4],
                              const SharedTile<__nv_bfloat16>& b, int k) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int upper = lane / 16 * 8;
  const int odd = lane / 8 % 2 * 8;
#pragma unroll
  for (int n = 0; n < kTile / 16; ++n) {
    std::uint32_t r[4];
    if constexpr (b_rows_are_n) {
      load_matrices<false>(r, b.row(16 * n + upper + lane % 8) + 16 * k + odd);
    } else {
      load_matrices<true>(r, b.row(16 * k + odd + lane % 8) + 16 * n + upper);
    }
    mma_bf16(acc.x[2 * n], a, r[0], r[1]);
    mma_bf16(acc.x[2 * n + 1], a, r[2], r[3]);
  }
}

}  // namespace detail

/// acc += A·B over 64 products. A is stored [m][k], or [k][m] if a_rows_are_k; B is stored [k][n],
/// or [n][k] if b_rows_are_n.
template <bool a_rows_are_k, bool b_rows_are_n>
__device__ void multiply(Accumulators& acc, const SharedTile<__nv_bfloat16>& a,
                         const SharedTile<__nv_bfloat16>& b) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int top = static_cast<int>(threadIdx.x) / 32 * 16;
#pragma unroll
  for (int k = 0; k < kTile / 16; ++k) {
    std::uint32_t r[4];
    if constexpr (a_rows_are_k) {
      detail::load_matrices<true>(
          r, a.row(16 * k + lane / 16 * 8 + lane % 8) + top + lane / 8 % 2 * 8);
    } else {
      detail::load_matrices<false>(r, a.row(top + lane % 16) + 16 * k + lane / 16 * 8);
    }
    detail::multiply_step<b_rows_are_n>(acc, r, b, k);
  }
}
template <bool a_rows_are_k, bool b_rows_are_n>
__device__ void multiply(Accumulators& acc, const SharedTile<float>& a,
                         const SharedTile<float>& b) {
  using detail::Split;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int top = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4;
  const auto from_a = [&](int m, int k) { return Split(a_rows_are_k ? a.row(k)[m] : a.row(m)[k]); };
  const auto from_b = [&](int k, int n) { return Split(b_rows_are_n ? b.row(n)[k] : b.row(k)[n]); };
#pragma unroll 2
  for (int k = lane % 4; k < kTile; k += 8) {
    const Split fa[4] = {from_a(top, k), from_a(top + 8, k), from_a(top, k + 4),
                         from_a(top + 8, k + 4)};
#pragma unroll
    for (int j = 0; j < kTile / 8; ++j) {
      const int n = 8 * j + lane / 4;
      const Split fb[2] = {from_b(k, n), from_b(k + 4, n)};
      detail::mma_float(acc.x[j], fa, fb);
    }
  }
}

/// acc += P·B with P in registers, rounded to T, and B stored [k][n].
__device__ inline void multiply(Accumulators& acc, const Accumulators& p,
                                const SharedTile<__nv_bfloat16>& b) {
#pragma unroll
  for (int k = 0; k < kTile / 16; ++k) {
    const float* x = p.x[2 * k];
    const float* y = p.x[2 * k + 1];
    const std::uint32_t a[4] = {detail::pack_bf16(x[0], x[1]), detail::pack_bf16(x[2], x[3]),
                                detail::pack_bf16(y[0], y[1]), detail::pack_bf16(y[2], y[3])};
    detail::multiply_step<false>(acc, a, b, k);
  }
}
__device__ inline void multiply(Accumulators& acc, const Accumulators& p,
                                const SharedTile<float>& b) {
  using detail::Split;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  // An A operand has columns c and c + 4 where an accumulator has 2c and 2c + 1: B's rows follow.
#pragma unroll
  for (int k = 0; k < kTile / 8; ++k) {
    const Split fa[4] = {Split(p.x[k][0]), Split(p.x[k][2]), Split(p.x[k][1]), Split(p.x[k][3])};
    const float* rows[2] = {b.row(8 * k + 2 * (lane % 4)), b.row(8 * k + 2 * (lane % 4) + 1)};
#pragma unroll
    for (int j = 0; j < kTile / 8; ++j) {
      const int n = 8 * j + lane / 4;
      const Split fb[2] = {Split(rows[0][n]), Split(rows[1][n])};
      detail::mma_float(acc.x[j], fa, fb);
    }
  }
}

}  // namespace carousel::mlstm::cuda
