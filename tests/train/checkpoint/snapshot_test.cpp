#include "train/checkpoint/snapshot.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"
#include "tests/support/errors.h"

namespace carousel {
namespace {

Tensor counted(std::int64_t n, float first, Device device = kCpu) {
  std::vector<float> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = first + static_cast<float>(i % 1000);
  return Tensor::from<float>(values, {n}, device);
}

// Of sizes that do not divide into the copies' pieces.
void expect_copies(Device device) {
  const Tensor large = counted(1'000'003, 1, device);
  const Tensor small = counted(1, 7, device);
  Snapshot snapshot({large, small});
  for (const float first : {2.0f, 3.0f}) {
    Tensor(large).copy_(counted(large.numel(), first));
    const std::vector<float> taken = large.to_vector<float>();
    snapshot.take();
    snapshot.hold_up();
    Tensor(large).zero_();
    snapshot.wait();
    EXPECT_EQ(snapshot.of(large).device(), kCpu);
    EXPECT_EQ(snapshot.of(large).to_vector<float>(), taken);
    EXPECT_EQ(taken[0], first);
    EXPECT_EQ(snapshot.of(small).item(), 7);
  }
}

TEST(Snapshot, KeepsWhatTheSourcesWere) { expect_copies(kCpu); }

TEST(CudaSnapshot, KeepsWhatTheSourcesWere) {
  CAROUSEL_REQUIRE_CUDA();
  expect_copies(testing::kGpu);
}

TEST(Snapshot, HasNothingOfOtherTensors) {
  const Tensor known = counted(3, 0);
  const Snapshot snapshot({known});
  testing::expect_error<InternalError>([&] { snapshot.of(counted(3, 0)); },
                                       {"no snapshot is taken of f32 (3) on cpu"});
}

}  // namespace
}  // namespace carousel
