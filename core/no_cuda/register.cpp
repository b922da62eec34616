#include "core/kernels/register.h"

namespace carousel {

void register_cuda_kernels() {}

std::string cuda_status() { return "this build has no CUDA"; }

int cuda_device_count() { return 0; }

}  // namespace carousel
