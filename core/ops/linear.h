// The linear layer's product.
#pragma once

#include <cstdint>
#include <vector>

#include "core/autograd/variable.h"

namespace carousel {

/// y = x·Wᵀ + b.
///   x      (…, in) f32, bf16 or f64
///   weight (out, in), x's dtype
///   bias   (out), float32 or x's dtype; may be undefined
/// Returns (…, out) in x's dtype. The gradients of weight and bias accumulate in float32 (float64
/// for f64). Throws UsageError on mismatched shapes, dtypes or devices.
Variable linear(const Variable& x, const Variable& weight, const Variable& bias = {});

/// The same y cut into pieces (…, sizes[k]), without a copy; the sizes add up to out.
std::vector<Variable> linear(const Variable& x, const Variable& weight, const Variable& bias,
                             const std::vector<std::int64_t>& sizes);

}  // namespace carousel
