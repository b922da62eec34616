// RMSNorm and LayerNorm. Formulas and precision: core/kernels/norm.h.
#pragma once

#include "core/autograd/variable.h"
#include "core/kernels/norm.h"

namespace carousel {

/// Normalises the last dimension of x (…, D) and scales it by weight (D), which is in x's dtype or
/// its accumulation dtype. All ops here throw UsageError on mismatched shapes, dtypes or devices.
Variable norm(const Variable& x, const Variable& weight, const NormOptions& options);

struct Normed {
  Variable sum;  ///< x + residual
  Variable out;  ///< its norm
};
/// x + residual and its norm in one pass; both (…, D).
Normed residual_norm(const Variable& x, const Variable& residual, const Variable& weight,
                     const NormOptions& options);

/// Normalises each head of h (B, S, NH, D), scales by weight (NH·D) and, if gate (B, S, NH·D) is
/// defined, multiplies by σ(gate). Returns (B, S, NH·D).
Variable head_norm(const Variable& h, const Variable& weight, const Variable& gate,
                   const NormOptions& options);

}  // namespace carousel
