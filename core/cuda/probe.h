#pragma once

#include <cuda_runtime_api.h>

namespace carousel::cuda {

/// cudaErrorNoKernelImageForDevice if this build has no code for the current device's architecture.
cudaError_t check_kernel_image();

}  // namespace carousel::cuda
