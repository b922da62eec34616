// Softmax cross-entropy. Formula: core/kernels/cross_entropy.h.
#pragma once

#include "core/autograd/variable.h"

namespace carousel {

struct CrossEntropy {
  Variable loss;   ///< (N) accumulation dtype, nats; 0 where the target is kIgnoreTarget
  Tensor correct;  ///< (N) u8: 1 where no logit exceeds the target's
};

/// Per-row loss of logits (N, V) against target (N) i32, with z = cap·tanh(logits/cap) if cap > 0.
/// Targets in host memory are checked: DataError names the first that is neither in [0, V) nor
/// kIgnoreTarget. Throws UsageError on mismatched shapes, dtypes or devices. The backward
/// overwrites the logits with their gradient if no variable holds them any more.
CrossEntropy cross_entropy(const Variable& logits, const Tensor& target, double cap);

}  // namespace carousel
