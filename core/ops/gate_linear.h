// The linears that make a cell's two gates.
#pragma once

#include <array>

#include "core/autograd/variable.h"

namespace carousel {

/// y[g] = x·W[g]ᵀ + b[g] for g = 0, 1, in the accumulation dtype A of x's dtype, and with one
/// reading of x for both.
///   x      (…, K) f32, bf16 or f64
///   weight (N, K) A, alike in shape
///   bias   (N) A
/// Returns (…, N) A each. The gradients of weights and biases accumulate in A. Throws UsageError on
/// mismatched shapes, dtypes or devices.
std::array<Variable, 2> gate_linear(const Variable& x, const std::array<Variable, 2>& weight,
                                    const std::array<Variable, 2>& bias);

}  // namespace carousel
