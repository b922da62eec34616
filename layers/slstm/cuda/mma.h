// The bf16 path on tensor cores. R, the h that enters the recurrence and, backwards, the gates'
// gradients are rounded to bf16 for the products, which accumulate in float32; states and
// everything that is not multiplied with R stay in float32.
#pragma once

#include "core/cuda/stream.h"
#include "layers/slstm/cuda/mma_plan.h"
#include "layers/slstm/kernels.h"

namespace carousel::slstm {

/// Each runs the kernels and returns true, or returns false if R does not fit on this GPU's chip or
/// no cluster on what of the GPU this process may use.
bool forward_mma(const cuda::Stream& stream, const CellForwardArgs& args);
bool forward_split(const cuda::Stream& stream, const CellForwardArgs& args, const MmaPlan& plan);
/// All but dr and db.
bool backward_mma(const cuda::Stream& stream, const CellBackwardArgs& args);

}  // namespace carousel::slstm
