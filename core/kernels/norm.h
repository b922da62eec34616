// RMSNorm and LayerNorm over the last dimension, each with an optional residual sum in front and,
// for heads, an optional output gate behind. Statistics in the accumulation dtype A of T.
//
//   s = x + residual (rounded to T), or x if there is no residual
//   RMSNorm    x̂ = s·rstd,          rstd = (mean s² + eps)^−1/2
//   LayerNorm  x̂ = (s − mean)·rstd, rstd = (mean (s − mean)² + eps)^−1/2, biased variance
//   y = x̂ (rounded to T) · w         w = weight, or 1 + weight if weight_is_residual
//   y ← y · σ(gate)                  if a gate is given
// Rows are groups of D consecutive elements. With G = weight.numel()/D > 1 (heads), row r uses
// weight[(r mod G)·D …] : the rows of one token are its heads.
#pragma once

#include "core/kernels/slot.h"
#include "core/tensor/tensor.h"

namespace carousel {

enum class NormKind { kRms, kLayer };

struct NormOptions {
  NormKind kind = NormKind::kRms;
  bool weight_is_residual = false;
  double eps = 1e-6;
};

/// Overwrites sum (if defined), out, mean (LayerNorm) and rstd.
struct NormForwardArgs {
  NormOptions options;
  Tensor x;         ///< (R, D) T
  Tensor residual;  ///< (R, D) T, optional
  Tensor weight;    ///< (G·D) A or T
  Tensor gate;      ///< (R, D) T, optional: pre-activation of the output gate
  Tensor sum;       ///< (R, D) T: s; required with residual
  Tensor out;       ///< (R, D) T
  Tensor mean;      ///< (R) A, LayerNorm only
  Tensor rstd;      ///< (R) A
};
inline constinit KernelSlot<NormForwardArgs> norm_fwd{"norm_fwd"};

/// dx (and dgate) are overwritten; dweight accumulates (+=), in an order that depends on the number
/// of threads alone. dx is the gradient of s: of x and of residual alike; with dsum, the gradient
/// that arrived at s from elsewhere is added to it.
struct NormBackwardArgs {
  NormOptions options;
  Tensor x;  ///< s: sum if there was a residual, else x
  Tensor weight, gate, mean, rstd;
  Tensor dout;     ///< (R, D) T
  Tensor dsum;     ///< (R, D) T, optional
  Tensor dx;       ///< (R, D) T
  Tensor dgate;    ///< (R, D) T, with gate
  Tensor dweight;  ///< (G·D) A, optional
};
inline constinit KernelSlot<NormBackwardArgs> norm_bwd{"norm_bwd"};

}  // namespace carousel
