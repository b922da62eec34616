#include "core/cuda/probe.h"

namespace carousel::cuda {
namespace {

__global__ void probe_kernel() {}

}  // namespace

cudaError_t check_kernel_image() {
  cudaFuncAttributes attributes{};
  return cudaFuncGetAttributes(&attributes, probe_kernel);
}

}  // namespace carousel::cuda
