// The registration functions of the CUDA kernels.
#pragma once

namespace carousel::slstm {

void register_cuda_backward();
void register_cuda_forward();

}  // namespace carousel::slstm
