// Copies of device memory to the host that run beside the compute stream.
#pragma once

#include <memory>

#include "core/kernels/slot.h"
#include "core/tensor/tensor.h"

namespace carousel {

/// A copy that was started.
class HostCopy {
 public:
  virtual ~HostCopy() = default;
  /// What the source's device is asked to do from now on begins when the copy is done; the host
  /// does not wait.
  virtual void hold_up() = 0;
  /// Returns when the copy is done; in any thread.
  virtual void wait() = 0;
};

/// Copies `from` (any shape and dtype) to `to`, of the same size in page-locked memory of the host,
/// as it is once all work queued on its device is done. Asynchronous: see `copy`, which is
/// overwritten. Both tensors must outlive the copy. CUDA alone.
struct StartHostCopyArgs {
  Tensor from, to;
  std::unique_ptr<HostCopy>* copy = nullptr;
};
inline constinit KernelSlot<StartHostCopyArgs> start_host_copy{"start_host_copy"};

}  // namespace carousel
