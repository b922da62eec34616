#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace carousel {

double learning_rate(double lr, const ScheduleConfig& schedule, std::int64_t step,
                     std::int64_t steps) {
  const auto real = [](std::int64_t n) { return static_cast<double>(n); };
  const std::int64_t warmup = schedule.warmup;
  const double floor = schedule.min_lr_ratio;
  if (step < warmup) return lr * real(step + 1) / real(warmup);

  const auto progress = [&](std::int64_t from, std::int64_t to) {
    return std::clamp(real(step - from) / real(std::max<std::int64_t>(to - from, 1)), 0.0, 1.0);
  };
  const std::int64_t end = schedule.decay_steps.value_or(steps);
  switch (schedule.type) {
    case ScheduleType::kConstant:
      return lr;
    case ScheduleType::kLinear:
      return lr * (1.0 - (1.0 - floor) * progress(warmup, end));
    case ScheduleType::kCosine: {
      const double p = progress(warmup, end);
      return lr * (floor + (1.0 - floor) * 0.5 * (1.0 + std::cos(std::numbers::pi * p)));
    }
    case ScheduleType::kWsd: {
      const std::int64_t decay =
          schedule.decay_steps.value_or(std::max<std::int64_t>(steps / 10, 1));
      return lr * (1.0 - (1.0 - floor) * progress(std::max(warmup, steps - decay), steps));
    }
  }
  return lr;
}

}  // namespace carousel
