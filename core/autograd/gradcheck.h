// One gradient check for every op: the tape's gradients against central differences in float64.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/autograd/variable.h"

namespace carousel {

struct GradcheckOptions {
  double step = 1e-6;       ///< half width of the central difference, relative to max(1, |x|)
  double tolerance = 1e-6;  ///< allowed ‖tape − differences‖₂ / max(‖differences‖₂, floor)
  double floor = 1e-3;     ///< below this norm errors are judged absolutely
  std::uint64_t seed = 7;  ///< of the random weights that turn the outputs into one loss
};

struct GradcheckResult {
  bool ok = true;
  std::string report;  ///< one line per input: its relative error
};

/// Checks d(Σ w·fn(inputs))/d(inputs) for every element of every float64 input; inputs of other
/// dtypes are constants. fn must be a pure function of its inputs. Runs fn 2·elements times.
GradcheckResult gradcheck(
    const std::function<std::vector<Variable>(const std::vector<Variable>&)>& fn,
    const std::vector<Tensor>& inputs, const GradcheckOptions& options = {});

}  // namespace carousel
