// Block-diagonal linear layers and their bias, the learnable skip, and copies of columns.
#pragma once

#include "core/kernels/slot.h"
#include "core/tensor/tensor.h"

namespace carousel {

/// y[r, h·DO+o] = Σ_d weight[h,o,d]·x[r, h·DI+d].
///   x (R, H·DI) T; weight (H,DO,DI) T; y (R, H·DO) T
struct HeadwiseForwardArgs {
  Tensor x, weight, y;
};
inline constinit KernelSlot<HeadwiseForwardArgs> headwise_fwd{"headwise_fwd"};
/// dx overwritten (optional); dweight += (optional), in T's accumulation dtype.
struct HeadwiseBackwardArgs {
  Tensor x, weight, dy, dx, dweight;
};
inline constinit KernelSlot<HeadwiseBackwardArgs> headwise_bwd{"headwise_bwd"};

/// Copies columns: out[r, out_column + j] = x[r, x_column + j] for j < columns; x (R,·), out (R,·)
/// of one dtype.
struct CopyColumnsArgs {
  Tensor x, out;
  std::int64_t x_column = 0, out_column = 0, columns = 0;
};
inline constinit KernelSlot<CopyColumnsArgs> copy_columns{"copy_columns"};

/// y = a·scale + b, with scale (D) A or T broadcast over rows: the learnable skip. a, b, y (R,D) T.
struct SkipForwardArgs {
  Tensor a, scale, b, y;
};
inline constinit KernelSlot<SkipForwardArgs> skip_fwd{"skip_fwd"};
/// da = dy·scale (overwritten); dscale[d] += Σ_r dy·a.  db is dy.
struct SkipBackwardArgs {
  Tensor a, scale, dy, da, dscale;
};
inline constinit KernelSlot<SkipBackwardArgs> skip_bwd{"skip_bwd"};

/// y = x + bias over rows: x, y (R,D) T; bias (D) A or T. The gradient of bias is column_sum().
struct AddBiasArgs {
  Tensor x, bias, y;
};
inline constinit KernelSlot<AddBiasArgs> add_bias_fwd{"add_bias_fwd"};

}  // namespace carousel
