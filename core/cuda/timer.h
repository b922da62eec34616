// Times device work by events, for benchmarks.
#pragma once

#include <functional>

#include "core/tensor/device.h"

namespace carousel::cuda {

/// Milliseconds that `work` takes on the device's compute stream. `prepare` is queued first and not
/// timed: with enough of it, the gaps between launches disappear. Waits for the device.
double time_ms(Device device, const std::function<void()>& prepare,
               const std::function<void()>& work);

}  // namespace carousel::cuda
