// Configuration of the optimizer and its schedule.
#pragma once

#include <cstdint>
#include <optional>

namespace carousel {

struct AdamWConfig {
  double lr = 1e-3;  ///< the peak learning rate
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip = 1.0;  ///< largest global gradient norm; 0: no clipping
};

enum class ScheduleType { kConstant, kLinear, kCosine, kWsd };

struct ScheduleConfig {
  ScheduleType type = ScheduleType::kCosine;
  std::int64_t warmup = 0;                  ///< steps
  double min_lr_ratio = 0.1;                ///< of the peak, at the end of the decay
  std::optional<std::int64_t> decay_steps;  ///< see learning_rate()
};

}  // namespace carousel
