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
  unsigned cluster = 1;          ///< neighbouring blocks that form a cluster (9.0 and newer)
};

namespace detail {
/// Throws on an error of the launch itself; under CAROUSEL_DEBUG_SYNC=1 waits for the kernel and
/// throws on its error too.
void check_launch(cudaError_t status, const char* name, const LaunchShape& shape,
                  const Stream& stream);

/// Asks for what a kernel may use only on request: more than 48 KiB of shared memory, its own
/// static memory included, and clusters above the portable size.
template <class... Params>
void allow(void (*kernel)(Params...), const LaunchShape& shape) {
  constexpr std::size_t kSafeWithoutAsking = 32 << 10;
  constexpr unsigned kPortableCluster = 8;
  if (shape.shared_bytes > kSafeWithoutAsking) {
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shape.shared_bytes)));
  }
  if (shape.cluster > kPortableCluster) {
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  }
}

/// The runtime's description of a launch; `attribute` must outlive it.
inline cudaLaunchConfig_t launch_config(const LaunchShape& shape, cudaLaunchAttribute& attribute) {
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = shape.cluster;
  attribute.val.clusterDim.y = 1;
  attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.attrs = &attribute;
  config.numAttrs = shape.cluster > 1 ? 1 : 0;
  return config;
}
}  // namespace detail

/// Runs `kernel` on the stream, asynchronously; an empty grid is no work. `name` is for messages.
/// Arguments are converted to the kernel's parameter types.
template <class... Params, class... Args>
void launch(const char* name, const Stream& stream, const LaunchShape& shape,
            void (*kernel)(Params...), Args&&... args) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  detail::allow(kernel, shape);
  cudaLaunchAttribute attribute{};
  cudaLaunchConfig_t config = detail::launch_config(shape, attribute);
  config.stream = stream.handle();
  detail::check_launch(
      cudaLaunchKernelEx(&config, kernel, static_cast<Params>(std::forward<Args>(args))...), name,
      shape, stream);
}

/// How many clusters of `shape` the current device can run at once.
template <class... Params>
int max_resident_clusters(void (*kernel)(Params...), const LaunchShape& shape) {
  detail::allow(kernel, shape);
  cudaLaunchAttribute attribute{};
  const cudaLaunchConfig_t config = detail::launch_config(shape, attribute);
  int clusters = 0;
  CUDA_CHECK(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config));
  return clusters;
}

/// Runs `kernel` as launch() does and returns true, or returns false if the device has no room for
/// one cluster of `shape`: large ones need many multiprocessors of one graphics cluster, and a
/// process may be confined to few.
template <class... Params, class... Args>
bool launch_if_cluster_fits(const char* name, const Stream& stream, const LaunchShape& shape,
                            void (*kernel)(Params...), Args&&... args) {
  if (shape.cluster > 1 && max_resident_clusters(kernel, shape) == 0) return false;
  launch(name, stream, shape, kernel, std::forward<Args>(args)...);
  return true;
}

/// ⌈n/d⌉ as a grid dimension. Throws InternalError if it exceeds the first dimension's limit.
unsigned grid_size(std::int64_t n, std::int64_t d);

}  // namespace carousel::cuda
