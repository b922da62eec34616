#include "core/cuda/backend.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <map>
#include <mutex>

#include "core/cuda/error.h"
#include "core/cuda/stream.h"

namespace carousel::cuda {
namespace {

// Two page-locked buffers used in turn, so that the host fills (or drains) one while the device
// copies the other. A buffer's event tells when the device is done with it.
class Staging {
 public:
  Staging() {
    for (Half& half : halves_) {
      CUDA_CHECK(cudaHostAlloc(&half.memory, kBytes, cudaHostAllocDefault));
      CUDA_CHECK(cudaEventCreateWithFlags(&half.done, cudaEventDisableTiming));
    }
  }

  void to_device(cudaStream_t stream, void* to, const void* from, std::size_t bytes) {
    for (std::size_t begin = 0; begin < bytes; begin += kBytes) {
      const std::size_t n = std::min(kBytes, bytes - begin);
      Half& half = next();
      CUDA_CHECK(cudaEventSynchronize(half.done));
      std::memcpy(half.memory, static_cast<const std::byte*>(from) + begin, n);
      CUDA_CHECK(cudaMemcpyAsync(static_cast<std::byte*>(to) + begin, half.memory, n,
                                 cudaMemcpyHostToDevice, stream));
      CUDA_CHECK(cudaEventRecord(half.done, stream));
    }
  }

  void to_host(cudaStream_t stream, void* to, const void* from, std::size_t bytes) {
    Half* pending = nullptr;
    std::byte* out = static_cast<std::byte*>(to);
    for (std::size_t begin = 0; begin < bytes; begin += kBytes) {
      Half& half = next();
      CUDA_CHECK(cudaMemcpyAsync(half.memory, static_cast<const std::byte*>(from) + begin,
                                 std::min(kBytes, bytes - begin), cudaMemcpyDeviceToHost, stream));
      CUDA_CHECK(cudaEventRecord(half.done, stream));
      if (pending != nullptr) out = drain(*pending, out, kBytes);
      pending = &half;
    }
    if (pending != nullptr) drain(*pending, out, bytes - (bytes - 1) / kBytes * kBytes);
  }

 private:
  static constexpr std::size_t kBytes = std::size_t{4} << 20;
  struct Half {
    void* memory = nullptr;
    cudaEvent_t done = nullptr;
  };

  static std::byte* drain(const Half& half, std::byte* out, std::size_t bytes) {
    CUDA_CHECK(cudaEventSynchronize(half.done));
    std::memcpy(out, half.memory, bytes);
    return out + bytes;
  }

  Half& next() {
    turn_ ^= 1;
    return halves_[turn_];
  }

  std::array<Half, 2> halves_;
  std::size_t turn_ = 0;
};

class CudaBackend final : public DeviceBackend {
 public:
  void* allocate(Device device, std::size_t bytes) override {
    const Stream stream(device);
    void* pointer = nullptr;
    const cudaError_t status = cudaMalloc(&pointer, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // the caller has a better message
      return nullptr;
    }
    CUDA_CHECK(status);
    return pointer;
  }

  void release(Device device, void* pointer, std::size_t) override {
    const Stream stream(device);
    CUDA_CHECK(cudaFree(pointer));
  }

  void copy(Device device, void* to, const void* from, std::size_t bytes) override {
    const Stream stream(device);
    CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream.handle()));
  }

  void copy_from_host(Device device, void* to, const void* from, std::size_t bytes) override {
    if (bytes == 0) return;
    const Stream stream(device);
    const std::lock_guard lock(mutex_);
    staging_for(stream).to_device(stream.handle(), to, from, bytes);
  }

  void copy_to_host(Device device, void* to, const void* from, std::size_t bytes) override {
    if (bytes == 0) return;
    const Stream stream(device);
    if (is_pinned(to)) {
      CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream.handle()));
      CUDA_CHECK(cudaStreamSynchronize(stream.handle()));
      return;
    }
    const std::lock_guard lock(mutex_);
    staging_for(stream).to_host(stream.handle(), to, from, bytes);
  }

  void fill_bytes(Device device, void* to, int byte, std::size_t bytes) override {
    const Stream stream(device);
    CUDA_CHECK(cudaMemsetAsync(to, byte, bytes, stream.handle()));
  }

  void synchronize(Device device) override {
    const Stream stream(device);
    CUDA_CHECK(cudaStreamSynchronize(stream.handle()));
  }

  bool pin(Device device, void* host, std::size_t bytes) override {
    const Stream stream(device);
    if (bytes == 0) return false;
    if (cudaHostRegister(host, bytes, cudaHostRegisterPortable) == cudaSuccess) return true;
    cudaGetLastError();  // a limit on locked memory, say: the detour works as well
    return false;
  }

  void unpin(Device device, void* host) override {
    const Stream stream(device);
    CUDA_CHECK(cudaHostUnregister(host));
  }

  std::string name(Device device) override { return Stream(device).info().name; }

  std::string unique_id(Device device) override {
    cudaDeviceProp properties{};
    CUDA_CHECK(cudaGetDeviceProperties(&properties, device.index));
    std::string text = "GPU";
    for (std::size_t i = 0; i < sizeof properties.uuid.bytes; ++i) {
      const bool group = i == 0 || i == 4 || i == 6 || i == 8 || i == 10;
      text += fmt::format("{}{:02x}", group ? "-" : "",
                          static_cast<unsigned char>(properties.uuid.bytes[i]));
    }
    return text;
  }

  DeviceMemory memory(Device device) override {
    const Stream stream(device);
    DeviceMemory memory;
    CUDA_CHECK(cudaMemGetInfo(&memory.free, &memory.total));
    return memory;
  }

 private:
  static bool is_pinned(const void* host) {
    cudaPointerAttributes attributes{};
    CUDA_CHECK(cudaPointerGetAttributes(&attributes, host));
    return attributes.type == cudaMemoryTypeHost;
  }

  Staging& staging_for(const Stream& stream) {
    CAROUSEL_CHECK(!stream.capturing(), "a host copy while a CUDA graph is captured");
    return staging_[stream.device().index];
  }

  std::mutex mutex_;
  std::map<int, Staging> staging_;
};

}  // namespace

DeviceBackend& backend() {
  static auto& instance = *new CudaBackend;  // never destroyed, as the devices' streams
  return instance;
}

}  // namespace carousel::cuda
