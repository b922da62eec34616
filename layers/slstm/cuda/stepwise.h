// The path for heads whose R does not fit on chip: one matrix product and one pointwise kernel a
// step.
#pragma once

#include "core/cuda/stream.h"
#include "layers/slstm/kernels.h"

namespace carousel::slstm {

void forward_stepwise(const cuda::Stream& stream, const CellForwardArgs& args);
/// All but dr and db.
void backward_stepwise(const cuda::Stream& stream, const CellBackwardArgs& args);

}  // namespace carousel::slstm
