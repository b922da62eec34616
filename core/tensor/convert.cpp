#include "core/tensor/convert.h"

#include <cstring>

#include "core/base/error.h"
#include "core/base/parallel.h"

namespace carousel {
namespace {

constexpr std::int64_t kGrain = 1 << 16;

template <class F>
void with_floating(DType t, F&& f) {
  switch (t) {
    case DType::kF32:
      return f.template operator()<float>();
    case DType::kBF16:
      return f.template operator()<bfloat16>();
    case DType::kF16:
      return f.template operator()<float16>();
    case DType::kF64:
      return f.template operator()<double>();
    default:
      throw InternalError("{} is not a floating type", name_of(t));
  }
}

// Equal types were copied already, so that going through float loses nothing but what To cannot
// hold.
template <class From, class To>
void convert_range(const std::byte* from, std::byte* to, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    From value;
    std::memcpy(&value, from + i * static_cast<std::int64_t>(sizeof(From)), sizeof(From));
    const To converted = static_cast<To>(static_cast<float>(value));
    std::memcpy(to + i * static_cast<std::int64_t>(sizeof(To)), &converted, sizeof(To));
  }
}

}  // namespace

void convert_elements(DType from_dtype, const std::byte* from, DType to_dtype, std::byte* to,
                      std::int64_t n) {
  if (from_dtype == to_dtype) {
    const auto size = static_cast<std::int64_t>(size_of(to_dtype));
    parallel_for(n, kGrain, [=](std::int64_t begin, std::int64_t end) {
      std::memcpy(to + begin * size, from + begin * size,
                  static_cast<std::size_t>((end - begin) * size));
    });
    return;
  }
  with_floating(from_dtype, [&]<class From>() {
    with_floating(to_dtype, [&]<class To>() {
      parallel_for(n, kGrain, [=](std::int64_t begin, std::int64_t end) {
        convert_range<From, To>(from, to, begin, end);
      });
    });
  });
}

}  // namespace carousel
