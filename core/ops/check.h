// Checks at the door of every op. Messages read `[op] weight f32 (7, 5) on cpu against x …`.
#pragma once

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

/// `value` must be defined, floating and on the device of `x`.
inline void check_operand(const char* op, const char* name, const Variable& value,
                          const Variable& x) {
  op_check(value.defined() && is_floating(value.dtype()) && value.device() == x.device(), op,
           "{} {} against x {}", name, describe(value), describe(x));
}

}  // namespace carousel
