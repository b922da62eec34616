// How the CPU kernels walk over heads: each (batch, head) pair is one independent unit of work,
// read and written in place through strided rows of the (B, S, NH, D) tensors.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/base/parallel.h"
#include "core/cpu/dispatch.h"
#include "layers/mlstm/kernels.h"

namespace carousel::mlstm {

struct Dims {
  std::int64_t batch, time, heads, dqk, dv;
  std::int64_t units() const { return batch * heads; }
};

inline Dims dims_of(const CellInputs& in) {
  return {in.q.dim(0), in.q.dim(1), in.q.dim(2), in.q.dim(3), in.v.dim(3)};
}

/// Rows of one head, `stride` elements apart: a matrix with that leading dimension.
template <class T>
struct Rows {
  T* data = nullptr;
  std::int64_t stride = 0;

  T* operator[](std::int64_t t) const { return data + t * stride; }
  Rows from(std::int64_t t) const { return {data + t * stride, stride}; }
  explicit operator bool() const { return data != nullptr; }
};

/// The rows of one unit in a (B, S, NH, D) tensor, or its elements in a (B, S, NH) one (D = 1);
/// null if the tensor is undefined.
template <class T>
Rows<T> rows_of(const Tensor& tensor, const Dims& dims, std::int64_t unit) {
  if (!tensor.defined()) return {};
  const std::int64_t width = tensor.rank() == 4 ? tensor.dim(3) : 1;
  const std::int64_t batch = unit / dims.heads;
  const std::int64_t head = unit % dims.heads;
  return {tensor.data<T>() + (batch * dims.time * dims.heads + head) * width, dims.heads * width};
}

/// The unit's block of a (B, NH, …) tensor; null if it is undefined.
template <class C>
C* block_of(const Tensor& tensor, const Dims& dims, std::int64_t unit) {
  return tensor.defined() ? tensor.data<C>() + unit * (tensor.numel() / dims.units()) : nullptr;
}

/// Rows in compute precision: `rows` themselves, or for bf16 a copy of the first n in `scratch`.
template <class T>
Rows<cpu::compute_t<T>> widened(Rows<T> rows, std::int64_t n, std::int64_t width,
                                cpu::compute_t<T>* scratch) {
  if constexpr (std::is_same_v<T, cpu::compute_t<T>>) {
    return rows;
  } else {
    for (std::int64_t t = 0; t < n; ++t) {
      const T* from = rows[t];
      cpu::compute_t<T>* to = scratch + t * width;
#pragma omp simd
      for (std::int64_t d = 0; d < width; ++d) to[d] = static_cast<cpu::compute_t<T>>(from[d]);
    }
    return {scratch, width};
  }
}

/// Where to compute an output in compute precision: in place, or in `scratch` if it is bf16 or
/// absent.
template <class T>
Rows<cpu::compute_t<T>> compute_target(Rows<T> rows, std::int64_t width,
                                       cpu::compute_t<T>* scratch) {
  if constexpr (std::is_same_v<T, cpu::compute_t<T>>) {
    if (rows) return rows;
  }
  return {scratch, width};
}

/// Rounds n rows of a compute_target() into the output; nothing where it was computed in place.
template <class T>
void round_into(Rows<T> rows, std::int64_t n, std::int64_t width, Rows<cpu::compute_t<T>> from) {
  if constexpr (!std::is_same_v<T, cpu::compute_t<T>>) {
    if (!rows) return;
    for (std::int64_t t = 0; t < n; ++t) {
      const cpu::compute_t<T>* wide = from[t];
      T* to = rows[t];
#pragma omp simd
      for (std::int64_t d = 0; d < width; ++d) to[d] = cpu::round_to<T>(wide[d]);
    }
  }
}

template <class C>
C dot(const C* a, const C* b, std::int64_t n) {
  C sum{0};
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// Copies n elements, or writes zeros if `from` is null.
template <class C>
void copy_or_zero(const C* from, std::int64_t n, C* to) {
  if (from != nullptr) {
    std::copy_n(from, n, to);
  } else {
    std::fill_n(to, n, C{0});
  }
}

/// Hands out aligned pieces of one thread's scratch memory; without memory it only adds up sizes.
class Arena {
 public:
  Arena() = default;
  explicit Arena(std::byte* base) : base_(base) {}

  template <class T>
  T* take(std::int64_t count) {
    T* piece = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (count * static_cast<std::int64_t>(sizeof(T)) + 63) / 64 * 64;
    return piece;
  }
  std::int64_t used() const { return used_; }

 private:
  std::byte* base_ = nullptr;
  std::int64_t used_ = 0;
};

/// Calls body(unit, arena) for every unit, in parallel; `scratch_bytes` lie behind each thread's
/// arena, uninitialised. `work` is a unit's cost in elementary operations. Every result is computed
/// by one unit alone, so it does not depend on the number of threads.
template <class Body>
void for_each_head(const Dims& dims, std::int64_t work, std::int64_t scratch_bytes, Body&& body) {
  const RoleScope role(Role::kWorkspace);
  const std::int64_t threads =
      in_parallel() ? 1 : std::min<std::int64_t>(num_threads(), dims.units());
  const Tensor scratch = Tensor::empty({threads, scratch_bytes}, DType::kU8);
  auto* base = static_cast<std::byte*>(scratch.raw());
  std::atomic<std::int64_t> next{0};
  const std::int64_t grain = std::max<std::int64_t>(1, cpu::kElementwiseGrain / work);
  parallel_for(dims.units(), grain, [&](std::int64_t begin, std::int64_t end) {
    std::byte* mine = base + scratch_bytes * next++;
    for (std::int64_t unit = begin; unit < end; ++unit) body(unit, Arena(mine));
  });
}

}  // namespace carousel::mlstm
