// Bounded and gated activations.
#pragma once

#include "core/autograd/variable.h"
#include "core/kernels/activation.h"

namespace carousel {

/// cap·tanh(x/cap), cap > 0. Throws UsageError otherwise.
Variable soft_cap(const Variable& x, double cap);
/// φ(gate)·up, elementwise on one shape and dtype: SwiGLU, GeGLU, or an output gate.
Variable gated(const Variable& gate, const Variable& up, Activation activation);

}  // namespace carousel
