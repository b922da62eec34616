// The linear layer's product.
#pragma once

#include "core/autograd/variable.h"

namespace carousel {

/// y = x·Wᵀ + b.
///   x      (…, in) f32, bf16 or f64
///   weight (out, in), x's dtype
///   bias   (out), float32 or x's dtype; may be undefined
/// Returns (…, out) in x's dtype. The gradients of weight and bias accumulate in float32 (float64
/// for f64). Throws UsageError on mismatched shapes, dtypes or devices.
Variable linear(const Variable& x, const Variable& weight, const Variable& bias = {});

}  // namespace carousel
