// Token embedding.
#pragma once

#include "core/kernels/slot.h"
#include "core/tensor/tensor.h"

namespace carousel {

/// out[t,:] = weight[ids[t],:]. ids (N) i32, every id in [0, V) (the op checks on the host);
/// weight (V,D), out (N,D) of one floating dtype.
struct EmbeddingForwardArgs {
  Tensor ids, weight, out;
};
inline constinit KernelSlot<EmbeddingForwardArgs> embedding_fwd{"embedding_fwd"};

/// dweight[ids[t],:] += dout[t,:], without atomics: the order of the sum is that of t.
/// dout (N,D) T; dweight (V,D) in T's accumulation dtype.
struct EmbeddingBackwardArgs {
  Tensor ids, dout, dweight;
};
inline constinit KernelSlot<EmbeddingBackwardArgs> embedding_bwd{"embedding_bwd"};

}  // namespace carousel
