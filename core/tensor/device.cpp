#include "core/tensor/device.h"

#include <sys/mman.h>

#include <array>
#include <cstdlib>
#include <cstring>

#include "core/base/error.h"

namespace carousel {
namespace {

class CpuBackend final : public DeviceBackend {
 public:
  void* allocate(Device, std::size_t bytes) override {
    // Large blocks are aligned to, and advised as, huge pages: fewer faults and TLB misses.
    constexpr std::size_t kHugePage = std::size_t{2} << 20;
    const std::size_t alignment = bytes >= 2 * kHugePage ? kHugePage : 256;
    void* p = nullptr;
    if (posix_memalign(&p, alignment, bytes) != 0) return nullptr;
    if (alignment == kHugePage) madvise(p, bytes, MADV_HUGEPAGE);
    return p;
  }
  void release(Device, void* pointer, std::size_t) override { std::free(pointer); }
  void copy(Device, void* to, const void* from, std::size_t bytes) override {
    if (bytes > 0) std::memmove(to, from, bytes);
  }
  void copy_from_host(Device d, void* to, const void* from, std::size_t bytes) override {
    copy(d, to, from, bytes);
  }
  void copy_to_host(Device d, void* to, const void* from, std::size_t bytes) override {
    copy(d, to, from, bytes);
  }
  void fill_bytes(Device, void* to, int byte, std::size_t bytes) override {
    if (bytes > 0) std::memset(to, byte, bytes);
  }
  void synchronize(Device) override {}
};

class MetaBackend final : public DeviceBackend {
 public:
  void* allocate(Device, std::size_t) override { return this; }  // any address but nullptr
  void release(Device, void*, std::size_t) override {}
  void copy(Device, void*, const void*, std::size_t) override {}
  void copy_from_host(Device, void*, const void*, std::size_t) override {}
  void copy_to_host(Device, void* to, const void*, std::size_t bytes) override {
    if (bytes > 0) std::memset(to, 0, bytes);
  }
  void fill_bytes(Device, void*, int, std::size_t) override {}
  void synchronize(Device) override {}
};

std::array<DeviceBackend*, kNumDeviceTypes>& backends() {
  static CpuBackend cpu;
  static MetaBackend meta;
  static std::array<DeviceBackend*, kNumDeviceTypes> all{&cpu, nullptr, &meta};
  return all;
}

}  // namespace

std::string to_string(Device device) {
  if (device.type == DeviceType::kCuda) return fmt::format("cuda:{}", device.index);
  return device.type == DeviceType::kCpu ? "cpu" : "meta";
}

DeviceBackend& backend_for(DeviceType type) {
  DeviceBackend* backend = backends()[static_cast<std::size_t>(type)];
  if (backend == nullptr) {
    throw UsageError("no CUDA device is available to this program; set device: cpu");
  }
  return *backend;
}

void register_backend(DeviceType type, DeviceBackend* backend) {
  backends()[static_cast<std::size_t>(type)] = backend;
}

bool has_backend(DeviceType type) { return backends()[static_cast<std::size_t>(type)] != nullptr; }

}  // namespace carousel
