// Installs the kernels of floor 2. Floors above register their own (layers/register.h).
#pragma once

namespace carousel {

/// Idempotent; call once before the first op.
void register_cpu_kernels();
/// Installs CUDA's backend and kernels; a build without CUDA links a stub that does nothing.
void register_cuda_kernels();

}  // namespace carousel
