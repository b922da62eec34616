// Errors of the CUDA runtime and of cuBLASLt as typed exceptions.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "core/base/error.h"

namespace carousel::cuda {

/// The device failed under the program (an uncorrectable memory error, a reset, a fallen bus): like
/// a lost peer, it is no mistake of the run's, which may resume from its newest checkpoint.
class DeviceLostError : public PeerError {
 public:
  using PeerError::PeerError;
};

/// Throws what `status` means: UsageError for no device, a driver that is too old or an
/// architecture that this build has no code for; OutOfMemoryError; DeviceLostError; else
/// InternalError. `what` names the call or the kernel.
[[noreturn]] void throw_cuda_error(cudaError_t status, const char* what, const char* file,
                                   int line);
[[noreturn]] void throw_cublas_error(cublasStatus_t status, const char* what, const char* file,
                                     int line);

}  // namespace carousel::cuda

/// Checks a call of the CUDA runtime.
#define CUDA_CHECK(call)                                                         \
  do {                                                                           \
    if (const cudaError_t status_ = (call); status_ != cudaSuccess) [[unlikely]] \
      ::carousel::cuda::throw_cuda_error(status_, #call, __FILE__, __LINE__);    \
  } while (false)

/// Checks a call of cuBLASLt.
#define CUBLAS_CHECK(call)                                                                    \
  do {                                                                                        \
    if (const cublasStatus_t status_ = (call); status_ != CUBLAS_STATUS_SUCCESS) [[unlikely]] \
      ::carousel::cuda::throw_cublas_error(status_, #call, __FILE__, __LINE__);               \
  } while (false)
