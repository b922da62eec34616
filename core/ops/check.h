// Checks at the door of every op. Messages read `[op] weight f32 (7, 5) on cpu against x …`.
#pragma once

#include <vector>

#include "core/autograd/variable.h"
#include "core/base/error.h"

namespace carousel {

/// Throws UsageError unless `condition` holds; the message starts with the op's name.
template <class... Args>
void op_check(bool condition, const char* op, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) [[unlikely]] {
    throw UsageError("[{}] {}", op, fmt::format(format, std::forward<Args>(args)...));
  }
}

inline std::string describe(const Variable& v) {
  return v.defined() ? describe(v.value()) : "undefined";
}

/// The shape with another last dimension.
inline Shape with_last(const Shape& shape, std::int64_t last) {
  std::vector<std::int64_t> dims(shape.dims().begin(), shape.dims().end());
  dims.back() = last;
  return Shape(dims);
}

/// `value` must be defined, floating and on the device of `x`.
inline void check_operand(const char* op, const char* name, const Variable& value,
                          const Variable& x) {
  op_check(value.defined() && is_floating(value.dtype()) && value.device() == x.device(), op,
           "{} {} against x {}", name, describe(value), describe(x));
}

/// Every element of `indices` (i32) in host memory must be in [lowest, limit); DataError names the
/// first that is not. Indices on other devices are not looked at.
inline void check_indices(const char* op, const char* what, const Tensor& indices,
                          std::int64_t limit, std::int32_t lowest = 0) {
  if (indices.device().type != DeviceType::kCpu) return;
  const std::int32_t* values = indices.data<std::int32_t>();
  for (std::int64_t i = 0; i < indices.numel(); ++i) {
    if (values[i] < lowest || values[i] >= limit) [[unlikely]] {
      throw DataError("[{}] {} {} at position {} is outside the vocabulary of {}", op, what,
                      values[i], i, limit);
    }
  }
}

}  // namespace carousel
