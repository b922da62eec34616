// Installs the kernels of floor 4, beside core/kernels/register.h.
#pragma once

namespace carousel {

/// And what plans count on meta.
void register_layer_cpu_kernels();
/// A build without CUDA links a stub that does nothing.
void register_layer_cuda_kernels();

}  // namespace carousel
