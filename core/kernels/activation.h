// Gated and bounded activations; elementwise, arithmetic in the accumulation dtype.
#pragma once

#include "core/kernels/slot.h"
#include "core/tensor/tensor.h"

namespace carousel {

/// y = cap·tanh(x/cap). The backward uses y: dx = dy·(1 − (y/cap)²).
struct SoftCapForwardArgs {
  Tensor x, y;
  double cap = 15.0;
};
inline constinit KernelSlot<SoftCapForwardArgs> soft_cap_fwd{"soft_cap_fwd"};
struct SoftCapBackwardArgs {
  Tensor y, dy, dx;
  double cap = 15.0;
};
inline constinit KernelSlot<SoftCapBackwardArgs> soft_cap_bwd{"soft_cap_bwd"};

/// φ of a gated product y = φ(gate)·up.
enum class Activation {
  kSilu,     ///< x·σ(x)
  kGelu,     ///< x·Φ(x), exact (erf)
  kSigmoid,  ///< σ(x)
};

/// y = φ(gate)·up; all of one shape and dtype.
struct GatedForwardArgs {
  Tensor gate, up, y;
  Activation activation = Activation::kSilu;
};
inline constinit KernelSlot<GatedForwardArgs> gated_fwd{"gated_fwd"};
/// dgate = dy·up·φ'(gate), dup = dy·φ(gate); both overwritten.
struct GatedBackwardArgs {
  Tensor gate, up, dy, dgate, dup;
  Activation activation = Activation::kSilu;
};
inline constinit KernelSlot<GatedBackwardArgs> gated_bwd{"gated_bwd"};

}  // namespace carousel
