// Softmax cross-entropy with an optional logit soft cap.
#pragma once

#include <cstdint>

#include "core/kernels/slot.h"
#include "core/tensor/tensor.h"

namespace carousel {

/// Targets with this value are ignored: no loss, no gradient.
inline constexpr std::int32_t kIgnoreTarget = -1;

/// z = cap·tanh(logits/cap) (cap > 0) or logits (cap = 0), in the accumulation dtype A;
/// lse[n] = log Σ_v e^{z[n,v]}; loss[n] = lse[n] − z[n,target[n]], 0 where ignored.
///   logits (N,V) f32, bf16 or f64; target (N) i32 in [0,V) or kIgnoreTarget (the op checks
///   targets in the host's memory; those on a GPU nobody does, where another value reads past the
///   row: a meaningless loss or an illegal access)
///   loss, lse (N) A; correct (N) u8, optional: 1 where the target is the first of the largest z
struct CrossEntropyForwardArgs {
  Tensor logits, target, loss, lse, correct;
  double cap = 0.0;
};
inline constinit KernelSlot<CrossEntropyForwardArgs> cross_entropy_fwd{"cross_entropy_fwd"};

/// dlogits = dloss[n]·(softmax(z) − onehot)·dz/dlogits, 0 in ignored rows; may alias logits.
struct CrossEntropyBackwardArgs {
  Tensor logits, target, lse;
  Tensor dloss;    ///< (N) A
  Tensor dlogits;  ///< (N,V), logits' dtype
  double cap = 0.0;
};
inline constinit KernelSlot<CrossEntropyBackwardArgs> cross_entropy_bwd{"cross_entropy_bwd"};

}  // namespace carousel
