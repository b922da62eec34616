#pragma once

#include <cuda_runtime_api.h>

namespace carousel::cuda {

/// What the code that the current device runs was compiled for: __CUDA_ARCH__ / 10, say 80 where
/// the driver made it from compute_80's PTX, whatever the device. It is so for all kernels but
/// those of targets with architectures of their own. cudaErrorNoKernelImageForDevice if this build
/// has no code for the device.
cudaError_t probe_kernel_image(int* compiled_for);

}  // namespace carousel::cuda
