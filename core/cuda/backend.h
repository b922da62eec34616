// CUDA's memory and copies, for floor 1.
#pragma once

#include "core/tensor/device.h"

namespace carousel::cuda {

/// The one backend of all GPUs. Memory comes from cudaMalloc, which the caching allocator above
/// rarely reaches; copies from and to the host go through page-locked buffers.
DeviceBackend& backend();
/// The kernel of core/kernels/host_copy.h.
void register_host_copy();

}  // namespace carousel::cuda
