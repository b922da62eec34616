// One description of a kernel's case, run on several devices and in several dtypes: a CUDA kernel
// is compared with the CPU's float64 result on the same inputs, and may err by at most twice what
// the CPU's own kernel of that dtype errs.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <vector>

#include "core/kernels/register.h"
#include "tests/support/random.h"

/// Skips the test, with the reason, where there is no usable GPU.
#define CAROUSEL_REQUIRE_CUDA()                                \
  if (!::carousel::has_backend(::carousel::DeviceType::kCuda)) \
  GTEST_SKIP() << ::carousel::cuda_status()

namespace carousel::testing {

inline constexpr Device kGpu{DeviceType::kCuda, 0};

/// Makes the tensors of a case, on one device and for one storage dtype T.
class Bench {
 public:
  Bench(Device device, DType dtype) : device_(device), dtype_(dtype) {}

  Device device() const { return device_; }
  DType dtype() const { return dtype_; }
  DType accumulation() const { return accumulation_dtype(dtype_); }

  /// Normal values, the same for every device and dtype: they are all bf16 numbers.
  Tensor input(const Shape& shape, std::uint64_t seed, double std = 1.0, double mean = 0.0) const {
    return values(shape, seed, dtype_, std, mean);
  }
  /// The same in the accumulation dtype.
  Tensor wide_input(const Shape& shape, std::uint64_t seed, double std = 1.0,
                    double mean = 0.0) const {
    return values(shape, seed, accumulation(), std, mean);
  }
  Tensor integers(const std::vector<std::int32_t>& v) const {
    return Tensor::from<std::int32_t>(v, {static_cast<std::int64_t>(v.size())}, device_);
  }
  Tensor bytes(const std::vector<std::uint8_t>& v, const Shape& shape) const {
    return Tensor::from<std::uint8_t>(v, shape, device_);
  }
  /// Poisoned with NaN, so that an element that the kernel forgets is found.
  Tensor output(const Shape& shape) const { return poisoned(shape, dtype_); }
  Tensor wide_output(const Shape& shape) const { return poisoned(shape, accumulation()); }

 private:
  Tensor values(const Shape& shape, std::uint64_t seed, DType dtype, double std,
                double mean) const {
    std::vector<double> exact(static_cast<std::size_t>(shape.numel()));
    for (std::size_t i = 0; i < exact.size(); ++i) {
      const double x = mean + std * philox_normal({seed, 0, 0}, i);
      exact[i] = static_cast<float>(bfloat16(static_cast<float>(x)));
    }
    const auto as = [&]<class T>(T) {
      std::vector<T> v;
      v.reserve(exact.size());
      for (const double x : exact) {
        if constexpr (std::is_same_v<T, double>) {
          v.push_back(x);
        } else {
          v.push_back(T(static_cast<float>(x)));
        }
      }
      return Tensor::from<T>(v, shape, device_);
    };
    if (dtype == DType::kF64) return as(double{});
    return dtype == DType::kF32 ? as(float{}) : as(bfloat16{});
  }
  Tensor poisoned(const Shape& shape, DType dtype) const {
    Tensor t = Tensor::empty(shape, dtype, device_);
    backend_for(device_.type).fill_bytes(device_, t.raw(), 0xFF, t.bytes());
    return t;
  }

  Device device_;
  DType dtype_;
};

/// Runs a kernel and returns its outputs.
using Case = std::function<std::vector<Tensor>(const Bench&)>;

inline std::vector<std::byte> bits(const Tensor& t) {
  std::vector<std::byte> out(t.bytes());
  t.copy_to_host(out.data());
  return out;
}

/// Expects of a CUDA kernel: right within twice the CPU kernel's error (or `slack`, for a function
/// whose CPU kernel happens to be exact), in f32 and bf16, and the same bits in every run.
inline void expect_cuda_matches_cpu(const Case& run, double slack_f32 = 1e-6,
                                    double slack_bf16 = 1e-6) {
  const std::vector<Tensor> truth = run(Bench(kCpu, DType::kF64));
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const std::vector<Tensor> cpu = run(Bench(kCpu, dtype));
    const std::vector<Tensor> cuda = run(Bench(kGpu, dtype));
    const std::vector<Tensor> again = run(Bench(kGpu, dtype));
    ASSERT_EQ(cuda.size(), truth.size());
    const double slack = dtype == DType::kF32 ? slack_f32 : slack_bf16;
    for (std::size_t i = 0; i < truth.size(); ++i) {
      EXPECT_EQ(cuda[i].dtype(), cpu[i].dtype()) << "output " << i;
      EXPECT_LE(relative_error(cuda[i], truth[i]), 2.0 * relative_error(cpu[i], truth[i]) + slack)
          << "output " << i << " in " << name_of(dtype) << ", the CPU's error is "
          << relative_error(cpu[i], truth[i]);
      EXPECT_EQ(bits(cuda[i]), bits(again[i])) << "output " << i << " in " << name_of(dtype);
    }
  }
}

}  // namespace carousel::testing
