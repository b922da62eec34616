// Block-diagonal linear layers, cutting and joining along the last dimension, the learnable skip.
// Formulas and precision: core/kernels/headwise.h. All throw UsageError on mismatched shapes,
// dtypes or devices.
#pragma once

#include <cstdint>
#include <vector>

#include "core/autograd/variable.h"

namespace carousel {

/// y[…, h·out + o] = Σ_d weight[h, o, d]·x[…, h·in + d] for x (…, H·in) and weight (H, out, in) of
/// one floating dtype, plus bias (H·out), if defined, of that or its accumulation dtype; with a
/// bias, y is rounded before it is added. The gradients of weight and bias accumulate in the
/// accumulation dtype.
Variable headwise_linear(const Variable& x, const Variable& weight, const Variable& bias = {});

/// Cuts x (…, Σ sizes) into pieces (…, sizes[k]).
std::vector<Variable> split(const Variable& x, const std::vector<std::int64_t>& sizes);
/// The inverse: joins pieces of one dtype that agree in all dimensions but the last.
Variable concat(const std::vector<Variable>& pieces);

/// a·scale + b with a and b (…, D) of one dtype and scale (D) in that or its accumulation dtype.
/// The gradient of scale accumulates.
Variable skip(const Variable& a, const Variable& scale, const Variable& b);

}  // namespace carousel
