// The gradients of R and b, which are sums over all tokens: made after the walk through time.
#pragma once

#include "core/cuda/stream.h"
#include "layers/slstm/kernels.h"

namespace carousel::slstm {

/// The same arguments with scratch for those dx that the caller does not want but dr or db need.
CellBackwardArgs with_gate_gradients(CellBackwardArgs args);

/// dr += Σ dx·hᵀ and db += Σ dx, from dx and h as stored.
void accumulate_parameter_gradients(const cuda::Stream& stream, const CellBackwardArgs& args);

}  // namespace carousel::slstm
