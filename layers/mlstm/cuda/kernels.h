// The registration functions of the mLSTM cell's CUDA kernels, one a file.
#pragma once

namespace carousel::mlstm {

void register_cuda_recurrent();
/// The chunkwise and the parallel form.
void register_cuda_blocked_fwd();
void register_cuda_blocked_bwd();

}  // namespace carousel::mlstm
