#include <gtest/gtest.h>

#include "core/kernels/elementwise.h"
#include "core/kernels/optimizer.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

TEST(CudaSums, MatchTheCpusAtOddSizesAndRepeat) {
  if (!has_backend(DeviceType::kCuda)) GTEST_SKIP() << "no usable GPU";
  const Device gpu{DeviceType::kCuda, 0};
  for (const std::int64_t n : {1, 3, 1000, 100003}) {
    const Tensor host = testing::random_normal<float>({n}, 3);
    const Tensor x = host.to(gpu);
    const auto sum_on = [&](const Tensor& t) {
      const Tensor out = Tensor::empty({}, DType::kF32, t.device());
      sum_fwd(t.device(), {t, out});
      return out.item();
    };
    const auto squares_on = [&](const Tensor& t) {
      const Tensor out = Tensor::empty({}, DType::kF64, t.device());
      sum_of_squares(t.device(), {t, out});
      return out.item();
    };
    EXPECT_NEAR(sum_on(x), sum_on(host), 1e-5 * std::sqrt(static_cast<double>(n)));
    EXPECT_NEAR(squares_on(x), squares_on(host), 1e-10 * squares_on(host));
    EXPECT_EQ(sum_on(x), sum_on(x));
  }
}

TEST(CudaSums, BroadcastReachesEveryElement) {
  if (!has_backend(DeviceType::kCuda)) GTEST_SKIP() << "no usable GPU";
  const Device gpu{DeviceType::kCuda, 0};
  const Tensor x = Tensor::from<float>(std::vector<float>{1.5f}, {}, gpu);
  const Tensor out = Tensor::empty({1001}, DType::kF32, gpu);
  broadcast(gpu, {x, out});
  for (const float value : out.to_vector<float>()) EXPECT_EQ(value, 1.5f);
}

}  // namespace
}  // namespace carousel
