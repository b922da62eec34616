// Dtype dispatch for CUDA kernels: each is a template over the device's storage type T, float or
// bf16, with arithmetic in float.
#pragma once

#include <cuda_bf16.h>

#include "core/base/error.h"
#include "core/tensor/tensor.h"

namespace carousel::cuda {

using bf16 = __nv_bfloat16;

template <class T>
struct Host {
  using type = T;
};
template <>
struct Host<bf16> {
  using type = bfloat16;
};

/// The first element as the device's type; the tensor's dtype must be T's.
template <class T>
T* data(const Tensor& t) {
  return reinterpret_cast<T*>(t.data<typename Host<T>::type>());
}
/// nullptr if the tensor is undefined: for optional kernel arguments.
template <class T>
T* data_or_null(const Tensor& t) {
  return t.defined() ? data<T>(t) : nullptr;
}

/// Calls f.template operator()<T>() with the device's type of a dtype.
template <class F>
void dispatch_floating(const char* kernel, DType dtype, F&& f) {
  switch (dtype) {
    case DType::kF32:
      return f.template operator()<float>();
    case DType::kBF16:
      return f.template operator()<bf16>();
    default:
      throw InternalError("[{}] no CUDA kernel for dtype {}", kernel, name_of(dtype));
  }
}

/// Weights that may be stored in float32 or in T: one of the pointers is nullptr, or both if
/// absent.
template <class T>
struct Weights {
  const T* narrow = nullptr;
  const float* wide = nullptr;

  static Weights of(const Tensor& t) {
    if (!t.defined()) return {};
    return t.dtype() == DType::kF32 ? Weights{nullptr, data<float>(t)}
                                    : Weights{data<T>(t), nullptr};
  }
};

/// True if every pointer (nullptr counts) is a multiple of 16 bytes: what vector accesses need.
template <class... P>
bool aligned16(const P*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

}  // namespace carousel::cuda
