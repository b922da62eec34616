// Activation checkpointing: trade a second forward for the memory of the activations.
#pragma once

#include <functional>
#include <vector>

#include "core/autograd/variable.h"

namespace carousel {

/// Runs fn(inputs) without recording and keeps only the inputs. The backward runs fn again, with
/// the random numbers of the first run, and differentiates that. Parameters that fn captures
/// accumulate as usual. At least one input must need a gradient, else nothing is recorded.
std::vector<Variable> recompute(
    const std::function<std::vector<Variable>(const std::vector<Variable>&)>& fn,
    const std::vector<Variable>& inputs);

}  // namespace carousel
