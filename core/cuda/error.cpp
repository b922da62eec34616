#include "core/cuda/error.h"

namespace carousel::cuda {
namespace {

std::string describe(cudaError_t status, const char* what, const char* file, int line) {
  return fmt::format("{}: {} ({}), at {}:{}", what, cudaGetErrorString(status),
                     cudaGetErrorName(status), file, line);
}

}  // namespace

void throw_cuda_error(cudaError_t status, const char* what, const char* file, int line) {
  cudaGetLastError();  // errors that do not stick to the device must not be found again later
  const std::string text = describe(status, what, file, line);
  switch (status) {
    case cudaErrorMemoryAllocation:
      throw OutOfMemoryError(
          "{}\nlower micro_batch_size (the results stay the same), turn on recompute, or reduce "
          "data.seq_len or the model, or free the device's memory from other programs",
          text);
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
      throw UsageError(
          "{}\nno such GPU; look at nvidia-smi and CUDA_VISIBLE_DEVICES, or set device: cpu", text);
    case cudaErrorInsufficientDriver:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorUnsupportedPtxVersion:
      throw UsageError("{}\nthe NVIDIA driver is older than this build's CUDA {}.{}: update it",
                       text, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidKernelImage:
      throw UsageError(
          "{}\nthis build has no code for the GPU's architecture: configure it with "
          "-DCMAKE_CUDA_ARCHITECTURES of this GPU (8.0 or newer)",
          text);
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorHardwareStackError:
    case cudaErrorContextIsDestroyed:
    case cudaErrorDeviceUninitialized:
    case cudaErrorDevicesUnavailable:
    case cudaErrorSystemNotReady:
    case cudaErrorUnknown:
      throw DeviceLostError(
          "{}\nthe GPU was lost; look for Xid lines in the kernel's log, then start "
          "the run again: it resumes from its newest checkpoint",
          text);
    default:
      throw InternalError("{}\nset CAROUSEL_DEBUG_SYNC=1 to learn which kernel failed", text);
  }
}

void throw_cublas_error(cublasStatus_t status, const char* what, const char* file, int line) {
  if (status == CUBLAS_STATUS_ALLOC_FAILED) {
    throw_cuda_error(cudaErrorMemoryAllocation, what, file, line);
  }
  if (status == CUBLAS_STATUS_ARCH_MISMATCH) {
    throw_cuda_error(cudaErrorNoKernelImageForDevice, what, file, line);
  }
  throw InternalError("{}: {} ({}), at {}:{}", what, cublasLtGetStatusString(status),
                      cublasLtGetStatusName(status), file, line);
}

}  // namespace carousel::cuda
