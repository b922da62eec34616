#include "core/tensor/tensor.h"

#include <gtest/gtest.h>

#include <cmath>

namespace carousel {
namespace {

TEST(Tensor, ViewsShareStorageAndCopiesDoNot) {
  const Tensor t = Tensor::from<float>(std::vector<float>{0, 1, 2, 3, 4, 5}, {3, 2});
  const Tensor row = t.slice(1, 2);
  EXPECT_EQ(row.to_vector<float>(), (std::vector<float>{2, 3}));
  EXPECT_TRUE(row.shares_storage(t));
  EXPECT_FALSE(t.clone().shares_storage(t));
  EXPECT_EQ(t.reshape({6}).shape(), Shape{6});
  EXPECT_THROW(t.reshape({5}), InternalError);
  EXPECT_THROW(t.slice(2, 4), InternalError);
}

TEST(Tensor, ReadingAsAnotherTypeIsRefused) {
  const Tensor t = Tensor::zeros({2}, DType::kF32);
  EXPECT_THROW(t.data<double>(), InternalError);
  EXPECT_THROW(Tensor().data<float>(), InternalError);
}

TEST(Tensor, WritesBumpTheVersion) {
  Tensor t = Tensor::zeros({2}, DType::kF32);
  const auto before = t.version();
  t.zero_();
  EXPECT_GT(t.version(), before);
}

TEST(Tensor, ZeroSizedTensorsAreFine) {
  const Tensor t = Tensor::zeros({0, 4}, DType::kF32);
  EXPECT_EQ(t.numel(), 0);
  EXPECT_TRUE(t.clone().to_vector<float>().empty());
}

TEST(Shape, RefusesOverflowAndNegatives) {
  EXPECT_THROW((Shape{1ll << 40, 1ll << 40}), InternalError);
  EXPECT_THROW((Shape{-1}), InternalError);
  EXPECT_EQ((Shape{2, 3}).to_string(), "(2, 3)");
}

TEST(Bfloat16, RoundsToNearestEven) {
  EXPECT_EQ(static_cast<float>(bfloat16(1.0f + 0x1.0p-8f)), 1.0f);              // tie to even
  EXPECT_EQ(static_cast<float>(bfloat16(1.0f + 0x1.8p-7f)), 1.0f + 0x1.0p-6f);  // tie to even, up
  EXPECT_TRUE(std::isnan(static_cast<float>(bfloat16(NAN))));
  EXPECT_TRUE(std::isinf(static_cast<float>(bfloat16(3.4e38f))));
}

TEST(Allocator, RepeatedStepsReachTheDeviceOnce) {
  const auto step = [] {
    const Tensor a = Tensor::empty({1000, 100}, DType::kF32);
    const Tensor b = Tensor::empty({333}, DType::kF32);
  };
  step();
  const auto before = memory_stats(kCpu).device_allocations;
  for (int i = 0; i < 10; ++i) step();
  EXPECT_EQ(memory_stats(kCpu).device_allocations, before);
}

TEST(Allocator, CountsByRoleAndReportsThePeak) {
  const auto before = memory_stats(kCpu);
  {
    const RoleScope role(Role::kState);
    const Tensor t = Tensor::empty({1 << 20}, DType::kF32);
    EXPECT_EQ(memory_stats(kCpu).used[static_cast<std::size_t>(Role::kState)] -
                  before.used[static_cast<std::size_t>(Role::kState)],
              std::size_t{4} << 20);
  }
  EXPECT_EQ(memory_stats(kCpu).total_used, before.total_used);
  EXPECT_GE(memory_stats(kCpu).total_peak, before.total_used + (std::size_t{4} << 20));
}

TEST(Allocator, OutOfMemoryNamesSizeAndRole) {
  const RoleScope role(Role::kActivations);
  try {
    Tensor::empty({1ll << 55}, DType::kF32);
    FAIL();
  } catch (const OutOfMemoryError& e) {
    const std::string what = e.what();
    for (const char* part :
         {"activations", "a tensor f32 (36028797018963968)", "micro_batch_size"}) {
      EXPECT_NE(what.find(part), std::string::npos) << what;
    }
    EXPECT_EQ(e.code(), ExitCode::kOutOfMemory);
  }
}

TEST(Allocator, WithoutItsCacheBlocksGoBackAtOnce) {
  drop_memory_cache(kMeta);
  const std::size_t before = memory_stats(kMeta).reserved;
  set_memory_cache(false);
  {
    const Tensor t = Tensor::empty({3}, DType::kU8, kMeta);
    EXPECT_EQ(memory_stats(kMeta).reserved - before, 3u);
  }
  set_memory_cache(true);
  EXPECT_EQ(memory_stats(kMeta).reserved, before);
}

TEST(Meta, CountsAllocationsWithoutMemory) {
  const auto before = memory_stats(kMeta).total_used;
  const Tensor t = Tensor::zeros({1ll << 40}, DType::kF32, kMeta);
  EXPECT_EQ(memory_stats(kMeta).total_used - before, std::size_t{4} << 40);
  EXPECT_EQ(t.range(7, {}).item(), 0.0);
}

}  // namespace
}  // namespace carousel
