#include "optim/schedule.h"

#include <gtest/gtest.h>

namespace carousel {
namespace {

constexpr double kLr = 2.0;

ScheduleConfig schedule(ScheduleType type, std::int64_t warmup, double ratio) {
  ScheduleConfig s;
  s.type = type;
  s.warmup = warmup;
  s.min_lr_ratio = ratio;
  return s;
}

TEST(Schedule, WarmsUpLinearlyFromOneStep) {
  const auto s = schedule(ScheduleType::kConstant, 4, 0.0);
  EXPECT_DOUBLE_EQ(learning_rate(kLr, s, 0, 10), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(kLr, s, 3, 10), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(kLr, s, 9, 10), 2.0);
}

TEST(Schedule, CosineFallsFromTheFullRateToItsFloor) {
  const auto s = schedule(ScheduleType::kCosine, 10, 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(kLr, s, 10, 110), 2.0);
  EXPECT_NEAR(learning_rate(kLr, s, 60, 110), 1.1, 1e-12);
  EXPECT_NEAR(learning_rate(kLr, s, 110, 110), 0.2, 1e-12);
  EXPECT_NEAR(learning_rate(kLr, s, 500, 110), 0.2, 1e-12);
}

TEST(Schedule, DecayStepsEndTheDecayBeforeTheRunDoes) {
  auto s = schedule(ScheduleType::kLinear, 0, 0.5);
  s.decay_steps = 100;
  EXPECT_DOUBLE_EQ(learning_rate(kLr, s, 50, 1000), 1.5);
  EXPECT_DOUBLE_EQ(learning_rate(kLr, s, 100, 1000), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(kLr, s, 999, 1000), 1.0);
}

TEST(Schedule, WsdStaysUntilTheLastSteps) {
  auto s = schedule(ScheduleType::kWsd, 5, 0.0);
  s.decay_steps = 20;
  EXPECT_DOUBLE_EQ(learning_rate(kLr, s, 79, 100), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(kLr, s, 90, 100), 1.0);
  EXPECT_NEAR(learning_rate(kLr, s, 99, 100), 0.1, 1e-12);
  s.decay_steps.reset();  // a tenth of the run
  EXPECT_DOUBLE_EQ(learning_rate(kLr, s, 90, 100), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(kLr, s, 95, 100), 1.0);
}

TEST(Schedule, RunsShorterThanTheirWarmupAreFine) {
  const auto s = schedule(ScheduleType::kCosine, 100, 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(kLr, s, 9, 10), 0.2);
}

}  // namespace
}  // namespace carousel
