// Installs the kernels of floor 2. Floors above register their own (layers/register.h).
#pragma once

#include <string>

namespace carousel {

/// Idempotent; call once before the first op.
void register_cpu_kernels();
/// Installs CUDA's backend and kernels if this build and machine have a usable GPU; afterwards
/// has_backend(DeviceType::kCuda) tells. A build without CUDA links a stub that does nothing.
void register_cuda_kernels();

/// One line for `carousel doctor` and for errors: the driver and the GPUs, or why none is usable.
std::string cuda_status();
/// Number of CUDA devices that this program may use; 0 where cuda_status() says why there are none.
int cuda_device_count();

}  // namespace carousel
