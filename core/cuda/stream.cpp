#include "core/cuda/stream.h"

#include <array>
#include <cstdlib>
#include <mutex>
#include <string_view>

#include "core/cuda/error.h"
#include "core/cuda/launch.h"
#include "core/cuda/probe.h"

namespace carousel::cuda {
namespace {

struct DeviceState {
  std::once_flag started;
  cudaStream_t stream = nullptr;
  DeviceInfo info;
};

constexpr int kMaxDevices = 64;

// Never destroyed: the driver may be gone before static destructors run.
DeviceState& state_of(int index) {
  static auto& all = *new std::array<DeviceState, kMaxDevices>;
  if (index < 0 || index >= kMaxDevices) throw UsageError("there is no device cuda:{}", index);
  return all[static_cast<std::size_t>(index)];
}

void start(int index, DeviceState& state) {
  state.info = query_device(index);
  if (state.info.major < kOldestMajor) {
    throw UsageError("cuda:{} is a {} of compute capability {}.{}; {}.0 or newer is needed", index,
                     state.info.name, state.info.major, state.info.minor, kOldestMajor);
  }
  int compiled_for = 0;
  CUDA_CHECK(probe_kernel_image(&compiled_for));
  state.info.clusters = state.info.major == 9 && compiled_for >= 90;
  CUDA_CHECK(cudaStreamCreateWithFlags(&state.stream, cudaStreamNonBlocking));
}

int attribute(cudaDeviceAttr name, int index) {
  int value = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&value, name, index));
  return value;
}

bool debug_sync() {
  static const bool on = [] {
    const char* value = std::getenv("CAROUSEL_DEBUG_SYNC");
    return value != nullptr && std::string_view(value) == "1";
  }();
  return on;
}

}  // namespace

DeviceInfo query_device(int index) {
  cudaDeviceProp properties{};
  CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
  DeviceInfo info;
  info.name = properties.name;
  info.major = properties.major;
  info.minor = properties.minor;
  info.multiprocessors = properties.multiProcessorCount;
  info.shared_per_block =
      static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
  info.shared_per_multiprocessor = properties.sharedMemPerMultiprocessor;
  info.l2_bytes = static_cast<std::size_t>(properties.l2CacheSize);
  info.memory_bytes = properties.totalGlobalMem;
  return info;
}

Stream::Stream(Device device) : device_(device) {
  CAROUSEL_CHECK(device.type == DeviceType::kCuda, "a CUDA kernel was called for {}",
                 to_string(device));
  // Costs nothing where the device is current already.
  CUDA_CHECK(cudaSetDevice(device.index));
  DeviceState& state = state_of(device.index);
  std::call_once(state.started, start, device.index, state);
  handle_ = state.stream;
  info_ = &state.info;
}

bool Stream::capturing() const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  CUDA_CHECK(cudaStreamIsCapturing(handle_, &status));
  return status != cudaStreamCaptureStatusNone;
}

void detail::check_launch(cudaError_t status, const char* name, const LaunchShape& shape,
                          const Stream& stream) {
  if (status == cudaSuccess && debug_sync() && !stream.capturing()) {
    status = cudaStreamSynchronize(stream.handle());
  }
  if (status == cudaSuccess) return;
  const std::string what = fmt::format(
      "kernel {} on {}, grid ({}, {}, {}), block ({}, {}, {}), {} bytes of shared memory", name,
      to_string(stream.device()), shape.grid.x, shape.grid.y, shape.grid.z, shape.block.x,
      shape.block.y, shape.block.z, shape.shared_bytes);
  throw_cuda_error(status, what.c_str(), __FILE__, __LINE__);
}

unsigned grid_size(std::int64_t n, std::int64_t d) {
  const std::int64_t blocks = (n + d - 1) / d;
  CAROUSEL_CHECK(blocks >= 0 && blocks < (std::int64_t{1} << 31), "a grid of {} blocks", blocks);
  return static_cast<unsigned>(blocks);
}

}  // namespace carousel::cuda
