// A kernel slot is the typed meeting point of an op and its kernels: one function pointer a device
// type. Kernels are installed explicitly by register_cpu_kernels() and register_cuda_kernels().
#pragma once

#include <array>
#include <cstddef>

#include "core/base/error.h"
#include "core/tensor/device.h"

namespace carousel {

/// `inline constinit KernelSlot<FooArgs> foo_fwd{"foo_fwd"};` in core/kernels/foo.h declares it.
/// Args is a plain struct of Tensors and scalars; undefined Tensors are absent optional arguments.
template <class Args>
class KernelSlot {
 public:
  using Function = void (*)(const Args&);

  constexpr explicit KernelSlot(const char* name) : name_(name) {}

  void set(DeviceType type, Function f) { functions_[static_cast<std::size_t>(type)] = f; }

  /// Runs the kernel of `device`, asynchronously where the device is. On meta it does nothing, or
  /// what is set for it: allocate what the kernels would.
  void operator()(Device device, const Args& args) const {
    const Function f = functions_[static_cast<std::size_t>(device.type)];
    if (f == nullptr && device.type == DeviceType::kMeta) return;
    CAROUSEL_CHECK(f != nullptr, "no kernel {} for {}; was register_cpu_kernels() called?", name_,
                   to_string(device));
    f(args);
  }

 private:
  const char* name_;
  std::array<Function, kNumDeviceTypes> functions_{};
};

}  // namespace carousel
