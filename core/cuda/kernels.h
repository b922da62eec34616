// The registration functions of the CUDA kernels, one a file.
#pragma once

namespace carousel::cuda {

void register_elementwise();

}  // namespace carousel::cuda
