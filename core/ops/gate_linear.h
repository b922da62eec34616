// The linears that make a cell's two gates.
#pragma once

#include <array>
#include <vector>

#include "core/autograd/variable.h"

namespace carousel {

/// y[g] = x·W[g]ᵀ + b[g] for g = 0, 1, in the accumulation dtype A of x's dtype, and with one
/// reading of x for both. x is all of `pieces` side by side, without a copy that joins them.
///   pieces (…, K_p) f32, bf16 or f64, alike in all but K_p; at least one
///   weight (N, Σ K_p) A, alike in shape
///   bias   (N) A
/// Returns (…, N) A each. The gradients of weights and biases accumulate in A. Throws UsageError on
/// mismatched shapes, dtypes or devices.
std::array<Variable, 2> gate_linear(const std::vector<Variable>& pieces,
                                    const std::array<Variable, 2>& weight,
                                    const std::array<Variable, 2>& bias);

}  // namespace carousel
