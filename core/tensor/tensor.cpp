#include "core/tensor/tensor.h"

namespace carousel {

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  Tensor t;
  t.shape_ = shape;
  t.dtype_ = dtype;
  std::size_t bytes = 0;
  CAROUSEL_CHECK(
      !__builtin_mul_overflow(static_cast<std::size_t>(shape.numel()), size_of(dtype), &bytes),
      "the size of {} overflows", shape);
  try {
    t.storage_ = std::make_shared<Storage>(device, bytes);
  } catch (const OutOfMemoryError& e) {
    throw OutOfMemoryError("no memory for a tensor {} {}\n{}", name_of(dtype), shape, e.what());
  }
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  t.zero_();
  return t;
}

Tensor Tensor::reshape(const Shape& shape) const {
  CAROUSEL_CHECK(shape.numel() == numel(), "cannot view {} as {}", shape_, shape);
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

Tensor Tensor::slice(std::int64_t begin, std::int64_t end) const {
  CAROUSEL_CHECK(rank() >= 1 && 0 <= begin && begin <= end && end <= dim(0),
                 "rows [{}, {}) of a tensor of shape {}", begin, end, shape_);
  std::vector<std::int64_t> dims(shape_.dims().begin(), shape_.dims().end());
  const std::int64_t row = dims[0] == 0 ? 0 : numel() / dims[0];
  dims[0] = end - begin;
  return range(begin * row, Shape(dims));
}

Tensor Tensor::range(std::int64_t begin, const Shape& shape) const {
  CAROUSEL_CHECK(0 <= begin && begin <= numel() && shape.numel() <= numel() - begin,
                 "elements {}…+{} of a tensor of shape {}", begin, shape.numel(), shape_);
  Tensor t = *this;
  t.shape_ = shape;
  t.offset_ += static_cast<std::size_t>(begin) * size_of(dtype_);
  return t;
}

void Tensor::copy_from_host(const void* from) {
  backend_for(device().type).copy_from_host(device(), raw(), from, bytes());
  bump_version();
}

void Tensor::copy_to_host(void* to) const {
  backend_for(device().type).copy_to_host(device(), to, raw(), bytes());
}

void Tensor::copy_(const Tensor& from) {
  CAROUSEL_CHECK(from.numel() == numel() && from.dtype() == dtype_, "copy of {} into {}",
                 describe(from), describe(*this));
  if (device() == from.device()) {
    backend_for(device().type).copy(device(), raw(), from.raw(), bytes());
  } else if (device().type == DeviceType::kCpu) {
    from.copy_to_host(raw());
  } else if (from.device().type == DeviceType::kCpu) {
    backend_for(device().type).copy_from_host(device(), raw(), from.raw(), bytes());
  } else {
    copy_(from.to(kCpu));
    return;
  }
  bump_version();
}

void Tensor::zero_() {
  backend_for(device().type).fill_bytes(device(), raw(), 0, bytes());
  bump_version();
}

Tensor Tensor::to(Device target) const {
  if (target == device()) return *this;
  Tensor t = empty(shape_, dtype_, target);
  t.copy_(*this);
  return t;
}

Tensor Tensor::clone() const {
  Tensor t = empty_like(*this);
  t.copy_(*this);
  return t;
}

double Tensor::item() const {
  CAROUSEL_CHECK(numel() == 1, "item() of a tensor of shape {}", shape_);
  switch (dtype_) {
    case DType::kF32:
      return to_vector<float>()[0];
    case DType::kF64:
      return to_vector<double>()[0];
    case DType::kBF16:
      return static_cast<float>(to_vector<bfloat16>()[0]);
    case DType::kI32:
      return to_vector<std::int32_t>()[0];
    case DType::kI64:
      return static_cast<double>(to_vector<std::int64_t>()[0]);
    default:
      throw InternalError("item() of a tensor of {}", name_of(dtype_));
  }
}

std::string describe(const Tensor& t) {
  if (!t.defined()) return "undefined";
  return fmt::format("{} {} on {}", name_of(t.dtype()), t.shape(), to_string(t.device()));
}

}  // namespace carousel
