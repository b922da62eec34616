// Block-diagonal linear layers and the learnable skip.
// Formulas and precision: core/kernels/headwise.h. All throw UsageError on mismatched shapes,
// dtypes or devices.
#pragma once

#include "core/autograd/variable.h"

namespace carousel {

/// y[…, h·out + o] = Σ_d weight[h, o, d]·x[…, h·in + d] for x (…, H·in) and weight (H, out, in) of
/// one floating dtype, plus bias (H·out), if defined, of that or its accumulation dtype; with a
/// bias, y is rounded before it is added. The gradients of weight and bias accumulate in the
/// accumulation dtype.
Variable headwise_linear(const Variable& x, const Variable& weight, const Variable& bias = {});

/// a·scale + b with a and b (…, D) of one dtype and scale (D) in that or its accumulation dtype.
/// The gradient of scale accumulates.
Variable skip(const Variable& a, const Variable& scale, const Variable& b);

}  // namespace carousel
