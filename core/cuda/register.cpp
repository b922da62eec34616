#include "core/kernels/register.h"

#include <cuda_runtime_api.h>

#include "core/base/error.h"
#include "core/cuda/backend.h"
#include "core/cuda/kernels.h"
#include "core/cuda/stream.h"
#include "core/tensor/device.h"

namespace carousel {
namespace {

std::string version(int v) { return fmt::format("{}.{}", v / 1000, v % 1000 / 10); }

// What was found once, at the first question.
struct Search {
  bool usable = false;
  std::string text;
  int count = 0;
};

Search search() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    return {false, "no NVIDIA driver is loaded on this machine (libcuda.so.1 was not found)"};
  }
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (status == cudaErrorInsufficientDriver) {
    return {false, fmt::format("the NVIDIA driver supports CUDA {}, this build needs {}: update it",
                               version(driver), version(CUDART_VERSION))};
  }
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) {
    return {false, "the NVIDIA driver sees no GPU (look at nvidia-smi and CUDA_VISIBLE_DEVICES)"};
  }
  if (status != cudaSuccess) {
    return {false, fmt::format("the NVIDIA driver fails: {} ({})", cudaGetErrorString(status),
                               cudaGetErrorName(status))};
  }
  Search found{false,
               fmt::format("driver CUDA {}, runtime {}", version(driver), version(CUDART_VERSION)),
               count};
  for (int i = 0; i < count; ++i) {
    const cuda::DeviceInfo info = cuda::query_device(i);
    const bool supported = info.major >= cuda::kOldestMajor;
    found.usable |= supported;
    found.text += fmt::format(", cuda:{} {} ({}.{}, {:.1f} GiB{})", i, info.name, info.major,
                              info.minor, static_cast<double>(info.memory_bytes) / (1 << 30),
                              supported ? "" : ": too old, 8.0 is needed");
  }
  return found;
}

const Search& found() {
  static const Search result = search();
  return result;
}

}  // namespace

std::string cuda_status() { return found().text; }

int cuda_device_count() { return found().usable ? found().count : 0; }

void register_cuda_kernels() {
  if (!found().usable) return;
  register_backend(DeviceType::kCuda, &cuda::backend());
  cuda::register_activation();
  cuda::register_columns();
  cuda::register_conv();
  cuda::register_cross_entropy();
  cuda::register_elementwise();
  cuda::register_embedding();
  cuda::register_gate_linear();
  cuda::register_headwise();
  cuda::register_host_copy();
  cuda::register_matmul();
  cuda::register_norm_backward();
  cuda::register_norm_forward();
  cuda::register_optimizer();
  cuda::register_reduce();
  cuda::register_sums();
}

}  // namespace carousel
