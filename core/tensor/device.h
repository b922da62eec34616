// Devices and the small interface that a backend implements for floor 1: memory and copies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace carousel {

/// kMeta has no memory and runs no kernel: allocations are counted, reads give zeros. A training
/// step on it shows what a real one would allocate (`carousel plan`); its index tells on which type
/// of device that would be.
enum class DeviceType : std::uint8_t { kCpu, kCuda, kMeta };
inline constexpr int kNumDeviceTypes = 3;

struct Device {
  DeviceType type = DeviceType::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

inline constexpr Device kCpu{DeviceType::kCpu, 0};
inline constexpr Device kMeta{DeviceType::kMeta, static_cast<int>(DeviceType::kCpu)};
inline constexpr Device kMetaCuda{DeviceType::kMeta, static_cast<int>(DeviceType::kCuda)};

/// The device's type, or on meta the type it stands for: what ops save may depend on it.
constexpr DeviceType modelled_type(Device device) {
  return device.type == DeviceType::kMeta ? static_cast<DeviceType>(device.index) : device.type;
}

/// "cpu", "cuda:1" or "meta".
std::string to_string(Device device);

/// A device's memory, whoever uses it; zeros where nobody counts.
struct DeviceMemory {
  std::size_t total = 0;
  std::size_t free = 0;
};

/// Memory and copies on one kind of device. All work is ordered on the device's compute stream;
/// the CPU's is the calling thread.
class DeviceBackend {
 public:
  virtual ~DeviceBackend() = default;
  /// Returns nullptr if memory is exhausted; at least 256-byte aligned otherwise.
  virtual void* allocate(Device device, std::size_t bytes) = 0;
  virtual void release(Device device, void* pointer, std::size_t bytes) = 0;
  /// Device to device; asynchronous where the device is.
  virtual void copy(Device device, void* to, const void* from, std::size_t bytes) = 0;
  /// Host to device and back; returns when the host buffer may be reused.
  virtual void copy_from_host(Device device, void* to, const void* from, std::size_t bytes) = 0;
  virtual void copy_to_host(Device device, void* to, const void* from, std::size_t bytes) = 0;
  virtual void fill_bytes(Device device, void* to, int byte, std::size_t bytes) = 0;
  virtual void synchronize(Device device) = 0;
  /// Page-locks host memory until unpin(), so that copies to and from it take no detour. False
  /// where that gains nothing or the system refuses.
  virtual bool pin(Device, void* /*host*/, std::size_t /*bytes*/) { return false; }
  virtual void unpin(Device, void* /*host*/) {}
  /// The maker's name for the device, e.g. "NVIDIA H100 80GB HBM3"; empty on CPU and meta.
  virtual std::string name(Device) { return {}; }
  /// Of a GPU, as nvidia-smi -L shows it: no other in the world has it. Empty for a CPU.
  virtual std::string unique_id(Device) { return {}; }
  virtual DeviceMemory memory(Device) { return {}; }
};

/// The backend of a device type. Throws UsageError if this build or machine has none.
DeviceBackend& backend_for(DeviceType type);
/// Installs a backend (the CPU's and meta's are always there); called once, by
/// register_cuda_kernels().
void register_backend(DeviceType type, DeviceBackend* backend);
bool has_backend(DeviceType type);

}  // namespace carousel
