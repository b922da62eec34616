// Causal depthwise convolution over time, with SiLU behind it.
#pragma once

#include "core/kernels/slot.h"
#include "core/tensor/tensor.h"

namespace carousel {

/// pre[b,t,c] = bias[c] + Σ_{j<K} weight[c,j]·x[b, t−K+1+j, c] (cross-correlation, as PyTorch's
/// Conv1d), y = SiLU(pre). Taps before the start of the sequence read `window`, or zero without
/// one; with `reset`, taps before the start of their token's document are zero.
struct ConvForwardArgs {
  Tensor x;            ///< (B,S,C) T
  Tensor weight;       ///< (C,K) A or T
  Tensor bias;         ///< (C) A or T, optional
  Tensor reset;        ///< (B,S) u8, optional
  Tensor window;       ///< (B,K−1,C) T, optional: the inputs before the first token
  Tensor y;            ///< (B,S,C) T
  Tensor window_last;  ///< (B,K−1,C) T, optional: the last K−1 inputs, for the next call; after a
                       ///< reset the slots before the document's start are zero
};
inline constinit KernelSlot<ConvForwardArgs> conv_silu_fwd{"conv_silu_fwd"};

/// dx is overwritten; dweight and dbias accumulate (+=). pre is recomputed. No gradient flows into
/// `window`.
struct ConvBackwardArgs {
  Tensor x, weight, bias, reset, window, dy;
  Tensor dx;              ///< (B,S,C) T
  Tensor dweight, dbias;  ///< (C,K), (C) A, optional
};
inline constinit KernelSlot<ConvBackwardArgs> conv_silu_bwd{"conv_silu_bwd"};

}  // namespace carousel
