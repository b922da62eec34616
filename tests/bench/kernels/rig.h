// What the GPU benchmarks share: data, a clock for a cold L2, and the machine's own rates.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/cuda/timer.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/matmul.h"
#include "tests/support/random.h"

namespace carousel::bench {

inline constexpr Device kGpu{DeviceType::kCuda, 0};
inline constexpr DType kF32 = DType::kF32;
inline constexpr DType kBF16 = DType::kBF16;

/// Normal values on the GPU, repeated with a period that divides no size: zeros would be faster
/// than real data.
inline Tensor values(const Shape& shape, DType dtype, std::uint64_t seed, double std = 1.0,
                     double mean = 0.0) {
  constexpr std::int64_t kPeriod = (1 << 20) + 8 * 13;
  const Tensor normal = testing::random_normal<float>({kPeriod}, seed, std, mean).to(kGpu);
  Tensor period = Tensor::empty({kPeriod}, dtype, kGpu);
  cast(kGpu, {normal, period});
  Tensor t = Tensor::empty(shape, dtype, kGpu);
  for (std::int64_t i = 0; i < t.numel(); i += kPeriod) {
    const Shape n{std::min(kPeriod, t.numel() - i)};
    t.range(i, n).copy_(period.range(0, n));
  }
  return t;
}
inline Tensor room(const Shape& shape, DType dtype) { return Tensor::empty(shape, dtype, kGpu); }

inline double bytes_of(const std::vector<Tensor>& tensors) {
  double sum = 0.0;
  for (const Tensor& t : tensors) sum += static_cast<double>(t.bytes());
  return sum;
}

class Clock {
 public:
  /// The median after one run to warm up, each run on a cold L2.
  double median_ms(const std::function<void()>& work) const {
    constexpr int kRuns = 11;
    work();
    std::vector<double> times;
    for (int i = 0; i < kRuns; ++i) {
      times.push_back(cuda::time_ms(
          kGpu, [&] { Tensor(flush_).zero_(); }, work));
    }
    std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
    return times[kRuns / 2];
  }

 private:
  // Its zeroing takes 0.3 ms, in which the host queues the launches to be timed.
  Tensor flush_ = room({1 << 30}, DType::kU8);
};

/// What this GPU reaches at most: the floors' units.
struct Rates {
  double copy = 0.0;    ///< bytes a millisecond, read and written
  double matrix = 0.0;  ///< bf16 FLOPs a millisecond in a product of 8192³

  explicit Rates(const Clock& clock) {
    const Tensor from = values({1 << 28}, kF32, 1);
    const Tensor to = room({1 << 28}, kF32);
    copy = bytes_of({from, to}) / clock.median_ms([&] { Tensor(to).copy_(from); });
    constexpr std::int64_t kN = 8192;
    const Tensor a = values({kN, kN}, kBF16, 2);
    const Tensor b = values({kN, kN}, kBF16, 3);
    const Tensor c = room({kN, kN}, kBF16);
    matrix =
        2.0 * std::pow(kN, 3) / clock.median_ms([&] { matmul(kGpu, {.a = a, .b = b, .out = c}); });
  }
  /// The least time for so many bytes and matrix FLOPs.
  double floor_ms(double bytes, double flops) const {
    return std::max(bytes / copy, flops / matrix);
  }
};

}  // namespace carousel::bench
