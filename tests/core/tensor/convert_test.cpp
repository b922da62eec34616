#include "core/tensor/convert.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/base/error.h"

namespace carousel {
namespace {

float half_bits_to_float(std::uint16_t bits) {
  float16 h;
  h.bits = bits;
  return static_cast<float>(h);
}

TEST(Float16, EveryValueSurvivesTheWayToFloatAndBack) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = half_bits_to_float(static_cast<std::uint16_t>(bits));
    const std::uint32_t exponent = (bits >> 10) & 31u;
    const double mantissa = bits & 0x3ffu;
    if (exponent == 31 && mantissa != 0) {
      EXPECT_TRUE(std::isnan(value)) << bits;
      EXPECT_TRUE(std::isnan(static_cast<float>(float16(value)))) << bits;
      continue;
    }
    const double magnitude = exponent == 31  ? INFINITY
                             : exponent == 0 ? mantissa * 0x1p-24
                                             : std::ldexp(1024 + mantissa, int(exponent) - 25);
    EXPECT_EQ(value, bits & 0x8000u ? -magnitude : magnitude) << bits;
    EXPECT_EQ(float16(value).bits, bits);
  }
}

TEST(Float16, RoundsToNearestEven) {
  // Between every pair of finite neighbours: the middle goes to the even one, the rest to the near.
  for (std::uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const float low = half_bits_to_float(static_cast<std::uint16_t>(bits));
    const float high = bits == 0x7bff ? 65536.0f : half_bits_to_float(std::uint16_t(bits + 1));
    const float middle = (low + high) / 2;  // exact in float
    const std::uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    EXPECT_EQ(float16(middle).bits, even);
    EXPECT_EQ(float16(std::nextafter(middle, 0.0f)).bits, bits);
    EXPECT_EQ(float16(std::nextafter(middle, INFINITY)).bits, bits + 1);
  }
}

template <class From, class To>
std::vector<To> convert(const std::vector<From>& from) {
  std::vector<To> to(from.size());
  convert_elements(dtype_of<From>, reinterpret_cast<const std::byte*>(from.data()), dtype_of<To>,
                   reinterpret_cast<std::byte*>(to.data()), static_cast<std::int64_t>(from.size()));
  return to;
}

TEST(ConvertElements, WidensExactlyAndNarrowsWithRounding) {
  const std::vector<double> values{0.0, -1.5, 1.0 + 0x1p-9, 1e300, -0x1p-130};
  EXPECT_EQ((convert<double, float>(values)),
            (std::vector<float>{0.0f, -1.5f, 1.0f + 0x1p-9f, INFINITY, -0x1p-130f}));
  const std::vector<bfloat16> narrow = convert<double, bfloat16>(values);
  EXPECT_EQ((convert<bfloat16, double>(narrow)),
            (std::vector<double>{0.0, -1.5, 1.0, INFINITY, -0x1p-130}));
  EXPECT_EQ((convert<float16, float>(convert<float, float16>({0.5f, 70000.0f, -3.0f}))),
            (std::vector<float>{0.5f, INFINITY, -3.0f}));
}

TEST(ConvertElements, NeedsNoAlignmentAndHandlesManyElements) {
  constexpr std::int64_t n = 200'003;
  std::vector<std::byte> source(n * 4 + 1);
  for (std::int64_t i = 0; i < n; ++i) {
    const auto value = static_cast<float>(i);
    std::memcpy(source.data() + 1 + i * 4, &value, 4);
  }
  std::vector<double> to(n);
  convert_elements(DType::kF32, source.data() + 1, DType::kF64,
                   reinterpret_cast<std::byte*>(to.data()), n);
  for (std::int64_t i = 0; i < n; ++i) ASSERT_EQ(to[static_cast<std::size_t>(i)], double(i));
}

TEST(ConvertElements, CopiesEqualTypesAndRefusesIntegers) {
  EXPECT_EQ((convert<std::int64_t, std::int64_t>({1, -2, INT64_MAX})),
            (std::vector<std::int64_t>{1, -2, INT64_MAX}));
  EXPECT_THROW((convert<std::int32_t, float>({1})), InternalError);
  EXPECT_THROW((convert<float, std::int32_t>({1})), InternalError);
}

}  // namespace
}  // namespace carousel
