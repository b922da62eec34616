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

TEST(Math, LogSigmoidIsAccurateRelativeToItself) {
  double worst = 0.0;
  for (float x = -60.0f; x < 87.0f; x += 0.00173f) {
    const double wide = x;
    const double want = std::min(wide, 0.0) - std::log1p(std::exp(-std::abs(wide)));
    worst = std::max(worst, std::abs((math::log_sigmoid(x) - want) / want));
  }
  EXPECT_LE(worst, 4.0 * 0x1.0p-23);  // exp and log1p
  EXPECT_EQ(math::log_sigmoid(-1000.0f), -1000.0f);
  EXPECT_EQ(math::log_sigmoid(1000.0f), 0.0f);
  EXPECT_TRUE(std::isnan(math::log_sigmoid(std::numeric_limits<float>::quiet_NaN())));
}

TEST(Math, NormalDistributionIsAccurateIntoItsTails) {
  double worst = 0.0;
  double worst_relative = 0.0;
  double worst_density = 0.0;
  for (float x = -15.0f; x < 15.0f; x += 0.00037f) {
    const double wide = x;
    const math::Normal<float> got = math::normal(x);
    const math::Normal<double> want = math::normal(wide);
    worst = std::max(worst, std::abs(got.cdf - want.cdf));
    worst_density = std::max(worst_density, std::abs(got.density - want.density));
    if (std::abs(x) < 4.0f) {
      worst_relative = std::max(worst_relative, std::abs(got.cdf - want.cdf) / want.cdf);
    }
  }
  EXPECT_LE(worst, 0x1.0p-22);
  EXPECT_LE(worst_density, 0x1.0p-23);
  EXPECT_LE(worst_relative, 1e-6);
  EXPECT_EQ(math::normal(0.0f).cdf, 0.5f);
  EXPECT_EQ(math::normal(-40.0f).cdf, 0.0f);
  EXPECT_EQ(math::normal(40.0f).cdf, 1.0f);
  EXPECT_TRUE(std::isnan(math::normal(std::numeric_limits<float>::quiet_NaN()).cdf));
}

}  // namespace
}  // namespace carousel
