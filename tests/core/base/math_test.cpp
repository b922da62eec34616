#include "core/base/math.h"

#include <gtest/gtest.h>

#include <limits>

namespace carousel {
namespace {

TEST(Math, ExpIsWithinTwoUlp) {
  double worst = 0.0;
  for (float x = -87.3f; x < 88.7f; x += 0.00137f) {
    const double want = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(math::exp(x) - want) / want);
  }
  EXPECT_LE(worst, 2.0 * 0x1.0p-23);
}

TEST(Math, ExpAtTheEdges) {
  EXPECT_EQ(math::exp(0.0f), 1.0f);
  EXPECT_EQ(math::exp(-1000.0f), 0.0f);
  EXPECT_EQ(math::exp(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_TRUE(std::isinf(math::exp(89.0f)));
  EXPECT_TRUE(std::isinf(math::exp(std::numeric_limits<float>::infinity())));
  EXPECT_TRUE(std::isnan(math::exp(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_TRUE(std::isfinite(math::exp(88.7f)));
}

TEST(Math, TanhIsAccurateRelativeToItself) {
  double worst = 0.0;
  for (float x = -12.0f; x < 12.0f; x += 0.00011f) {
    if (x == 0.0f) continue;
    const double want = std::tanh(static_cast<double>(x));
    worst = std::max(worst, std::abs((math::tanh(x) - want) / want));
  }
  EXPECT_LE(worst, 4.0 * 0x1.0p-23);
  EXPECT_EQ(math::tanh(0.0f), 0.0f);
  EXPECT_TRUE(std::isnan(math::tanh(std::numeric_limits<float>::quiet_NaN())));
}

TEST(Math, Log1pUnitIsAccurateRelativeToItself) {
  double worst = 0.0;
  for (float x = 1e-30f; x <= 1.0f; x = x < 1e-3f ? x * 1.1f : x + 1.7e-6f) {
    const double want = std::log1p(static_cast<double>(x));
    worst = std::max(worst, std::abs((math::log1p_unit(x) - want) / want));
  }
  EXPECT_LE(worst, 3.0 * 0x1.0p-23);
  EXPECT_EQ(math::log1p_unit(0.0f), 0.0f);
  EXPECT_TRUE(std::isnan(math::log1p_unit(std::numeric_limits<float>::quiet_NaN())));
}

TEST(Math, LogSigmoidIsExactInBothTails) {
  EXPECT_NEAR(math::log_sigmoid(-50.0f), -50.0f, 1e-5f);
  EXPECT_NEAR(math::log_sigmoid(20.0f), -2.0611536e-9f, 1e-14f);
}

}  // namespace
}  // namespace carousel
