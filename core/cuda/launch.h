// The one way to launch a kernel.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

#include "core/cuda/error.h"
#include "core/cuda/stream.h"

namespace carousel::cuda {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;  ///< dynamic shared memory of a block
  bool cooperative = false;      ///< all blocks must be resident at once (grid-wide barriers)
};

namespace detail {
/// Throws on an error of the launch itself; under CAROUSEL_DEBUG_SYNC=1 waits for the kernel and
/// throws on its error too.
void check_launch(cudaError_t status, const char* name, const LaunchShape& shape,
                  const Stream& stream);
}  // namespace detail

/// Runs `kernel` on the stream, asynchronously; an empty grid is no work. `name` is for messages.
/// Arguments are converted to the kernel's parameter types.
template <class... Params, class... Args>
void launch(const char* name, const Stream& stream, const LaunchShape& shape,
            void (*kernel)(Params...), Args&&... args) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  constexpr std::size_t kSharedByDefault = 48 << 10;  // more has to be asked for
  if (shape.shared_bytes > kSharedByDefault) {
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shape.shared_bytes)));
  }
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream.handle();
  config.attrs = &attribute;
  config.numAttrs = shape.cooperative ? 1 : 0;
  detail::check_launch(
      cudaLaunchKernelEx(&config, kernel, static_cast<Params>(std::forward<Args>(args))...), name,
      shape, stream);
}

/// ⌈n/d⌉ as a grid dimension. Throws InternalError if it exceeds the first dimension's limit.
unsigned grid_size(std::int64_t n, std::int64_t d);

}  // namespace carousel::cuda
