#include <gtest/gtest.h>

#include <numeric>

#include "core/kernels/elementwise.h"
#include "tests/support/devices.h"

namespace carousel {
namespace {

using testing::kGpu;

TEST(NoGpu, TensorsOnCudaAreRefusedWithTheRemedy) {
  if (has_backend(DeviceType::kCuda)) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_FALSE(cuda_status().empty());
  EXPECT_THROW(Tensor::zeros({2}, DType::kF32, kGpu), UsageError);
}

TEST(CudaBackend, StatusNamesTheDriverAndTheDevice) {
  CAROUSEL_REQUIRE_CUDA();
  EXPECT_NE(cuda_status().find("driver CUDA"), std::string::npos) << cuda_status();
  EXPECT_NE(cuda_status().find("cuda:0"), std::string::npos) << cuda_status();
}

TEST(CudaBackend, HostCopiesSurviveChunksOfStaging) {
  CAROUSEL_REQUIRE_CUDA();
  // None, one, and more than two staging buffers of 4 MiB, with a ragged end.
  for (const std::int64_t n : {0ll, 1ll, 1ll << 20, (9ll << 20) / 4 + 3, (21ll << 20) / 4 + 1}) {
    std::vector<std::int32_t> values(static_cast<std::size_t>(n));
    std::iota(values.begin(), values.end(), 7);
    const Tensor t = Tensor::from<std::int32_t>(values, {n}, kGpu);
    std::fill(values.begin(), values.end(), 0);  // the host buffer may be reused at once
    const std::vector<std::int32_t> back = t.clone().to_vector<std::int32_t>();
    ASSERT_EQ(static_cast<std::int64_t>(back.size()), n);
    for (std::int64_t i = 0; i < n; ++i) ASSERT_EQ(back[static_cast<std::size_t>(i)], i + 7);
  }
}

TEST(CudaBackend, ZeroesAndSlices) {
  CAROUSEL_REQUIRE_CUDA();
  Tensor t = Tensor::from<float>(std::vector<float>{1, 2, 3, 4, 5, 6}, {3, 2}, kGpu);
  t.slice(1, 2).zero_();
  EXPECT_EQ(t.to_vector<float>(), (std::vector<float>{1, 2, 0, 0, 5, 6}));
  EXPECT_EQ(t.slice(2, 3).to(kCpu).to_vector<float>(), (std::vector<float>{5, 6}));
}

TEST(CudaBackend, NamesTheDeviceAndItsMemory) {
  CAROUSEL_REQUIRE_CUDA();
  DeviceBackend& backend = backend_for(DeviceType::kCuda);
  EXPECT_NE(cuda_status().find(backend.name(kGpu)), std::string::npos) << backend.name(kGpu);
  const std::string id = backend.unique_id(kGpu);
  EXPECT_TRUE(id.starts_with("GPU-") && id.size() == 40) << id;
  const DeviceMemory memory = backend.memory(kGpu);
  EXPECT_GT(memory.free, 0u);
  EXPECT_GT(memory.total, memory.free);
}

TEST(CudaBackend, RepeatedStepsReachTheDriverOnce) {
  CAROUSEL_REQUIRE_CUDA();
  const auto step = [] {
    const Tensor a = Tensor::empty({1000, 100}, DType::kF32, kGpu);
    fill(kGpu, {a, 1.0});
  };
  step();
  const auto before = memory_stats(kGpu).device_allocations;
  for (int i = 0; i < 10; ++i) step();
  EXPECT_EQ(memory_stats(kGpu).device_allocations, before);
}

TEST(CudaBackend, OutOfMemoryNamesSizeAndRoleAndLeavesTheDeviceUsable) {
  CAROUSEL_REQUIRE_CUDA();
  const RoleScope role(Role::kActivations);
  try {
    Tensor::empty({1ll << 45}, DType::kF32, kGpu);
    FAIL();
  } catch (const OutOfMemoryError& e) {
    const std::string what = e.what();
    for (const char* part :
         {"activations", "f32 (35184372088832)", "the device has", "recompute"}) {
      EXPECT_NE(what.find(part), std::string::npos) << what;
    }
  }
  EXPECT_EQ(Tensor::zeros({3}, DType::kF32, kGpu).to_vector<float>(), std::vector<float>(3, 0.0f));
}

TEST(CudaBackend, AMissingDeviceIsNamed) {
  CAROUSEL_REQUIRE_CUDA();
  EXPECT_THROW(Tensor::zeros({2}, DType::kF32, Device{DeviceType::kCuda, 63}), UsageError);
  EXPECT_THROW(Tensor::zeros({2}, DType::kF32, Device{DeviceType::kCuda, 64}), UsageError);
}

}  // namespace
}  // namespace carousel
