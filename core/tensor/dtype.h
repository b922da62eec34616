// Element types and their host representations.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace carousel {

/// float64 exists for references and gradient checks; float16 for reading checkpoints only.
enum class DType : std::uint8_t { kF32, kBF16, kF16, kF64, kI32, kI64, kU16, kU8 };

/// bfloat16 storage: the upper half of a float32, rounded to nearest even.
struct bfloat16 {
  std::uint16_t bits = 0;

  bfloat16() = default;
  explicit bfloat16(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    // A NaN must stay a NaN: rounding could carry its mantissa into infinity.
    bits = static_cast<std::uint16_t>((u & 0x7fffffffu) > 0x7f800000u
                                          ? (u >> 16) | 0x40u
                                          : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  explicit operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};

/// IEEE half precision storage, rounded to nearest even.
struct float16 {
  std::uint16_t bits = 0;

  float16() = default;
  explicit float16(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (u >> 16) & 0x8000u;
    const std::uint32_t a = u & 0x7fffffffu;
    std::uint32_t magnitude;
    if (a > 0x7f800000u) {
      magnitude = 0x7e00u | ((a >> 13) & 0x1ffu);  // a quiet NaN with the payload's upper bits
    } else if (a >= 0x477ff000u) {
      magnitude = 0x7c00u;  // 65520 and above round to infinity
    } else if (a < 0x38800000u) {
      // Below 2^-14 halves are multiples of 2^-24, the spacing of floats at 1/2: the addition
      // rounds.
      magnitude = std::bit_cast<std::uint32_t>(std::bit_cast<float>(a) + 0.5f) - 0x3f000000u;
    } else {
      magnitude = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
    }
    bits = static_cast<std::uint16_t>(sign | magnitude);
  }
  explicit operator float() const {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
    const std::uint32_t magnitude = static_cast<std::uint32_t>(bits & 0x7fffu) << 13;
    // The product corrects the exponent's bias, for denormals too; infinity and NaN stay so.
    const std::uint32_t finite =
        std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
    return std::bit_cast<float>(sign |
                                (magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : finite));
  }
};

/// Bytes per element.
constexpr std::size_t size_of(DType t) {
  switch (t) {
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
    case DType::kU16:
      return 2;
    case DType::kU8:
      return 1;
  }
  return 0;
}

/// "f32", "bf16", …: the names used in configurations, messages and tables.
constexpr std::string_view name_of(DType t) {
  switch (t) {
    case DType::kF32:
      return "f32";
    case DType::kBF16:
      return "bf16";
    case DType::kF16:
      return "f16";
    case DType::kF64:
      return "f64";
    case DType::kI32:
      return "i32";
    case DType::kI64:
      return "i64";
    case DType::kU16:
      return "u16";
    case DType::kU8:
      return "u8";
  }
  return "?";
}

constexpr bool is_floating(DType t) {
  return t == DType::kF32 || t == DType::kBF16 || t == DType::kF64 || t == DType::kF16;
}

/// dtype_of<T>: the DType whose host representation is T.
template <class T>
inline constexpr DType dtype_of = [] {
  static_assert(sizeof(T) == 0, "no DType is represented by this C++ type");
  return DType::kF32;
}();
template <>
inline constexpr DType dtype_of<float> = DType::kF32;
template <>
inline constexpr DType dtype_of<double> = DType::kF64;
template <>
inline constexpr DType dtype_of<bfloat16> = DType::kBF16;
template <>
inline constexpr DType dtype_of<float16> = DType::kF16;
template <>
inline constexpr DType dtype_of<std::int32_t> = DType::kI32;
template <>
inline constexpr DType dtype_of<std::int64_t> = DType::kI64;
template <>
inline constexpr DType dtype_of<std::uint16_t> = DType::kU16;
template <>
inline constexpr DType dtype_of<std::uint8_t> = DType::kU8;

/// The dtype in which an op accumulates and keeps statistics for operands of type t: float32 for
/// bf16 and f32, float64 for f64.
constexpr DType accumulation_dtype(DType t) { return t == DType::kF64 ? DType::kF64 : DType::kF32; }

}  // namespace carousel
