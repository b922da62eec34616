// Learning-rate schedules.
#pragma once

#include <cstdint>

#include "optim/config.h"

namespace carousel {

/// The learning rate of step s (counted from 0) of a run of `steps` steps:
///   warm-up     s < W:  lr·(s+1)/W
///   then, with p = (s − W)/(D − W), D = decay_steps or else `steps`, held at its end for s >= D:
///   constant    lr
///   linear      lr·(1 − (1 − r)·p),  r = min_lr_ratio
///   cosine      lr·(r + (1 − r)·(1 + cos πp)/2)
///   wsd         lr until the last D steps of the run (decay_steps, or a tenth of the run), then
///               linear down to r·lr at the end (warm-up, stable, decay)
double learning_rate(double lr, const ScheduleConfig& schedule, std::int64_t step,
                     std::int64_t steps);

}  // namespace carousel
