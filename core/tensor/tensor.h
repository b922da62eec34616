// Tensor: a shape, a dtype and a contiguous range of a shared, reference-counted storage.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/tensor/allocator.h"
#include "core/tensor/device.h"
#include "core/tensor/dtype.h"
#include "core/tensor/shape.h"

namespace carousel {

/// A block of device memory that lives as long as some Tensor refers to it. Its version counts
/// in-place writes, so that autograd notices when a saved tensor has been overwritten.
class Storage {
 public:
  Storage(Device device, std::size_t bytes)
      : device_(device), block_(allocate_block(device, bytes)) {}
  ~Storage() { release_block(device_, block_); }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  Device device() const { return device_; }
  std::byte* data() const { return static_cast<std::byte*>(block_.pointer); }
  std::uint64_t version() const { return version_; }
  void bump_version() { ++version_; }

 private:
  Device device_;
  Block block_;
  std::atomic<std::uint64_t> version_{0};
};

/// Always contiguous, row-major. Copying a Tensor copies the handle; reshape and slice share the
/// storage. A default-constructed Tensor is undefined and stands for "absent".
class Tensor {
 public:
  Tensor() = default;

  /// Uninitialised memory under the thread's current Role.
  static Tensor empty(const Shape& shape, DType dtype, Device device = kCpu);
  static Tensor zeros(const Shape& shape, DType dtype, Device device = kCpu);
  /// Copies `values` (shape.numel() of them) to the device. Throws InternalError on a mismatch.
  template <class T>
  static Tensor from(std::span<const T> values, const Shape& shape, Device device = kCpu) {
    CAROUSEL_CHECK(static_cast<std::int64_t>(values.size()) == shape.numel(),
                   "{} values for shape {}", values.size(), shape);
    Tensor t = empty(shape, dtype_of<T>, device);
    t.copy_from_host(values.data());
    return t;
  }

  bool defined() const { return storage_ != nullptr; }
  explicit operator bool() const { return defined(); }

  const Shape& shape() const { return shape_; }
  std::int64_t dim(int i) const { return shape_[i]; }
  int rank() const { return shape_.rank(); }
  std::int64_t numel() const { return shape_.numel(); }
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_->device(); }

  /// The first element; the dtype must be T's. The pointer is a device pointer where device() is.
  template <class T>
  T* data() const {
    CAROUSEL_CHECK(defined(), "data() of an undefined tensor");
    CAROUSEL_CHECK(dtype_ == dtype_of<T>, "tensor of {} read as {}", name_of(dtype_),
                   name_of(dtype_of<T>));
    return reinterpret_cast<T*>(storage_->data() + offset_);
  }
  /// Like data(), but nullptr if the tensor is undefined: for optional kernel arguments.
  template <class T>
  T* data_or_null() const {
    return defined() ? data<T>() : nullptr;
  }
  void* raw() const { return storage_->data() + offset_; }

  /// The same elements under another shape; the sizes must agree.
  Tensor reshape(const Shape& shape) const;
  /// Rows [begin, end) of the outermost dimension.
  Tensor slice(std::int64_t begin, std::int64_t end) const;
  /// Elements [begin, begin + shape.numel()) of the flattened tensor, under `shape`.
  Tensor range(std::int64_t begin, const Shape& shape) const;

  /// Whole-tensor copies between host memory and this tensor. copy_from_host and copy_ bump the
  /// version; both return when the source may be reused.
  void copy_from_host(const void* from);
  void copy_to_host(void* to) const;
  /// Copies from a tensor of the same size and dtype on any device.
  void copy_(const Tensor& from);
  void zero_();
  Tensor to(Device device) const;
  Tensor clone() const;
  /// Host copy of the elements; the dtype must be T's.
  template <class T>
  std::vector<T> to_vector() const {
    CAROUSEL_CHECK(dtype_ == dtype_of<T>, "tensor of {} read as {}", name_of(dtype_),
                   name_of(dtype_of<T>));
    std::vector<T> out(static_cast<std::size_t>(numel()));
    copy_to_host(out.data());
    return out;
  }
  /// Element 0 of a one-element tensor, converted to double; synchronises.
  double item() const;

  std::uint64_t version() const { return storage_->version(); }
  /// Every kernel caller that writes into an existing tensor must say so.
  void bump_version() const { storage_->bump_version(); }
  bool shares_storage(const Tensor& other) const { return storage_ == other.storage_; }
  /// True if no other handle keeps this storage alive, so that it may be reused in place.
  bool unique() const { return storage_.use_count() == 1; }

 private:
  std::shared_ptr<Storage> storage_;
  std::size_t offset_ = 0;  // bytes
  Shape shape_;
  DType dtype_ = DType::kF32;
};

inline Tensor empty_like(const Tensor& t) {
  return Tensor::empty(t.shape(), t.dtype(), t.device());
}
inline Tensor zeros_like(const Tensor& t) {
  return Tensor::zeros(t.shape(), t.dtype(), t.device());
}

/// "f32 (2, 3) on cpu", or "undefined": for error messages.
std::string describe(const Tensor& t);

}  // namespace carousel
