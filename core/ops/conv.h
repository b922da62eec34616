// Causal depthwise convolution. Formula and precision: core/kernels/conv.h.
#pragma once

#include "core/autograd/variable.h"

namespace carousel {

/// SiLU of the causal depthwise convolution of x over time.
///   x           (B, S, C) f32, bf16 or f64
///   weight      (C, 1, K) or (C, K), x's dtype or its accumulation dtype; tap K−1 is the token
///   itself bias        (C), likewise; may be undefined reset       (B, S) u8, may be undefined:
///   non-zero at the first token of a document window      (B, K−1, C) in x's dtype, may be
///   undefined: the inputs before x, a constant window_last if not null, receives the window for
///   the next call
/// Returns (B, S, C). Gradients of weight and bias accumulate. Throws UsageError on mismatched
/// shapes, dtypes or devices.
Variable causal_conv_silu(const Variable& x, const Variable& weight, const Variable& bias,
                          const Tensor& reset, const Tensor& window = {},
                          Tensor* window_last = nullptr);

}  // namespace carousel
