#include "core/cuda/probe.h"

namespace carousel::cuda {
namespace {

__global__ void probe_kernel() {}

}  // namespace

cudaError_t probe_kernel_image(int* compiled_for) {
  cudaFuncAttributes attributes{};
  const cudaError_t status = cudaFuncGetAttributes(&attributes, probe_kernel);
  *compiled_for = attributes.ptxVersion;
  return status;
}

}  // namespace carousel::cuda
