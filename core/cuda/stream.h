// Devices and their compute streams.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "core/tensor/device.h"

namespace carousel::cuda {

/// What launch plans need to know of a GPU.
struct DeviceInfo {
  std::string name;
  int major = 0, minor = 0;  ///< compute capability
  int multiprocessors = 0;
  std::size_t shared_per_block = 0;  ///< bytes of shared memory that one block may ask for
  std::size_t shared_per_multiprocessor = 0;
  std::size_t l2_bytes = 0;
  std::size_t memory_bytes = 0;
  /// Whether kernels may use clusters of blocks: the GPU has them, and what it runs of this build
  /// was compiled for it. Known once the device is started.
  bool clusters = false;
};

/// The oldest compute capability that the kernels support.
inline constexpr int kOldestMajor = 8;

/// What the driver says of GPU `index`; starts nothing on it.
DeviceInfo query_device(int index);

/// The compute stream of a device: all kernels and copies of this program run on it, in order.
class Stream {
 public:
  /// Makes the device current in this thread; starts it on the first use. Throws UsageError if
  /// there is no such device or this build has no code for it.
  explicit Stream(Device device);

  cudaStream_t handle() const { return handle_; }
  Device device() const { return device_; }
  const DeviceInfo& info() const { return *info_; }
  /// True while a CUDA graph is being captured from this stream.
  bool capturing() const;

 private:
  Device device_;
  cudaStream_t handle_ = nullptr;
  const DeviceInfo* info_ = nullptr;
};

}  // namespace carousel::cuda
