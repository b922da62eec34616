// Dtype dispatch for CPU kernels: each is a template over the storage type T, with arithmetic in
// compute_t<T> (float for float and bf16, double for double).
#pragma once

#include "core/base/error.h"
#include "core/tensor/tensor.h"

namespace carousel::cpu {

template <class T>
struct Compute {
  using type = T;
};
template <>
struct Compute<bfloat16> {
  using type = float;
};
template <class T>
using compute_t = typename Compute<T>::type;

/// `value` rounded to the storage type. To be preferred to static_cast<T>(value) in loops under
/// `omp simd`: GCC does not vectorise a loop whose own body constructs an object (a bfloat16).
template <class T>
T round_to(compute_t<T> value) {
  return static_cast<T>(value);
}

/// Calls f.template operator()<T>() with the C++ type of a floating dtype.
template <class F>
void dispatch_floating(const char* kernel, DType dtype, F&& f) {
  switch (dtype) {
    case DType::kF32:
      return f.template operator()<float>();
    case DType::kBF16:
      return f.template operator()<bfloat16>();
    case DType::kF64:
      return f.template operator()<double>();
    default:
      throw InternalError("[{}] no CPU kernel for dtype {}", kernel, name_of(dtype));
  }
}

/// Elements per thread below which splitting elementwise work does not pay.
inline constexpr std::int64_t kElementwiseGrain = 1 << 14;

}  // namespace carousel::cpu
