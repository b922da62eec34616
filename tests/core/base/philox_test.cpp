#include "core/base/philox.h"

#include <gtest/gtest.h>

namespace carousel {
namespace {

// Known-answer vectors published with Random123 (kat_vectors, philox4x32 10 rounds).
TEST(Philox, MatchesTheKnownAnswers) {
  const PhiloxWords zero = philox4x32({{0, 0, 0, 0}}, 0, 0);
  EXPECT_EQ(zero.x[0], 0x6627e8d5u);
  EXPECT_EQ(zero.x[1], 0xe169c58du);
  EXPECT_EQ(zero.x[2], 0xbc57ac4cu);
  EXPECT_EQ(zero.x[3], 0x9b00dbd8u);
  const PhiloxWords pi =
      philox4x32({{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}}, 0xa4093822u, 0x299f31d0u);
  EXPECT_EQ(pi.x[0], 0xd16cfe09u);
  EXPECT_EQ(pi.x[1], 0x94fdccebu);
  EXPECT_EQ(pi.x[2], 0x5001e420u);
  EXPECT_EQ(pi.x[3], 0x24126ea1u);
}

TEST(Philox, NormalHasTheMomentsOfANormal) {
  double sum = 0.0;
  double sum2 = 0.0;
  constexpr int kN = 100000;
  for (std::uint64_t i = 0; i < kN; ++i) {
    const double x = philox_normal({5, 1, 2}, i);
    sum += x;
    sum2 += x * x;
  }
  EXPECT_NEAR(sum / kN, 0.0, 4.0 / std::sqrt(kN));
  EXPECT_NEAR(sum2 / kN, 1.0, 4.0 * std::sqrt(2.0 / kN));
}

TEST(Philox, EveryPartOfTheKeyMatters) {
  const std::uint32_t word = philox_word({1, 2, 3}, 4);
  EXPECT_NE(word, philox_word({2, 2, 3}, 4));
  EXPECT_NE(word, philox_word({1, 3, 3}, 4));
  EXPECT_NE(word, philox_word({1, 2, 4}, 4));
  EXPECT_NE(word, philox_word({1, 2, 3}, 5));
}

}  // namespace
}  // namespace carousel
