// Sums over the rows of a matrix, in two stages without atomics: chunks of rows first, then the
// chunks, each in a fixed order.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/cuda/device.cuh"
#include "core/cuda/dispatch.h"
#include "core/cuda/launch.h"

namespace carousel::cuda {

inline constexpr int kReduceLanes = 32;  // columns (times N) of a block
inline constexpr int kReduceRows = 8;    // rows that a block of the first stage reads at a time
inline constexpr int kPartialRows = 32;  // … and of the second, of which there are few blocks

/// out[chunk, c] = Σ term(r, c) over the chunk's rows, or out[c] += with `accumulate`. Term has
/// `void operator()(row, column, float (&sum)[N]) const`, which adds the terms of N columns, and
/// may write results of its own.
template <int N, int kRows, class Term>
__global__ void __launch_bounds__(kReduceLanes* kRows)
    column_reduce_kernel(Term term, std::int64_t rows, std::int64_t columns,
                         std::int64_t rows_per_chunk, float* out, bool accumulate) {
  const std::int64_t column = (std::int64_t{blockIdx.x} * kReduceLanes + threadIdx.x) * N;
  const std::int64_t begin = blockIdx.y * rows_per_chunk;
  const std::int64_t end = begin + rows_per_chunk < rows ? begin + rows_per_chunk : rows;
  float sum[N] = {};
  if (column < columns) {
#pragma unroll 8
    for (std::int64_t r = begin + threadIdx.y; r < end; r += kRows) term(r, column, sum);
  }
  __shared__ float partial[kRows][kReduceLanes][N + 1];  // + 1 spreads the banks
#pragma unroll
  for (int e = 0; e < N; ++e) partial[threadIdx.y][threadIdx.x][e] = sum[e];
  __syncthreads();
  if (threadIdx.y != 0 || column >= columns) return;
#pragma unroll
  for (int e = 0; e < N; ++e) {
    float total = 0.0f;
#pragma unroll
    for (int y = 0; y < kRows; ++y) total += partial[y][threadIdx.x][e];
    float* to = out + blockIdx.y * columns + column + e;
    *to = accumulate ? *to + total : total;
  }
}

/// The term x[r, c] of a plain sum.
template <class T>
struct MatrixTerm {
  const T* x;
  std::int64_t columns;
  template <int N>
  __device__ void operator()(std::int64_t row, std::int64_t column, float (&sum)[N]) const {
    float values[N];
    load(x + row * columns + column, values);
#pragma unroll
    for (int e = 0; e < N; ++e) sum[e] += values[e];
  }
};

/// out[c] += Σ_r x[r, c] for x (rows, columns): the second stage of other kernels' partial sums
/// too.
void add_column_sums(const Stream& stream, const float* x, std::int64_t rows, std::int64_t columns,
                     float* out);

/// Float32 scratch on the stream's device; it may be reused as soon as the handle is gone, since
/// all work is in order.
inline Tensor workspace(const Stream& stream, std::int64_t elements) {
  const RoleScope role(Role::kWorkspace);
  return Tensor::empty({elements}, DType::kF32, stream.device());
}

/// out[c] += Σ_r term(r, c). N columns are handled together: columns must be a multiple of N, and
/// the addresses that term uses aligned to N elements.
template <int N, class Term>
void reduce_columns(const char* name, const Stream& stream, const Term& term, std::int64_t rows,
                    std::int64_t columns, float* out) {
  if (rows == 0 || columns == 0) return;
  const unsigned tiles = grid_size(columns, kReduceLanes * N);
  // Enough blocks to fill the device four times, but chunks worth a block's while.
  const std::int64_t wanted =
      std::max<std::int64_t>(1, 4 * std::int64_t{stream.info().multiprocessors} / tiles);
  const std::int64_t per_chunk =
      std::max<std::int64_t>((rows + wanted - 1) / wanted, std::int64_t{8} * kReduceRows);
  const unsigned chunks = grid_size(rows, per_chunk);
  const dim3 block(kReduceLanes, kReduceRows);
  if (chunks == 1) {
    launch(name, stream, {dim3(tiles, 1), block}, column_reduce_kernel<N, kReduceRows, Term>, term,
           rows, columns, per_chunk, out, true);
    return;
  }
  const Tensor partial = workspace(stream, chunks * columns);
  launch(name, stream, {dim3(tiles, chunks), block}, column_reduce_kernel<N, kReduceRows, Term>,
         term, rows, columns, per_chunk, partial.data<float>(), false);
  add_column_sums(stream, partial.data<float>(), chunks, columns, out);
}

}  // namespace carousel::cuda
