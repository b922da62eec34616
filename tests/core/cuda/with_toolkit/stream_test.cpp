#include "core/cuda/stream.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"

namespace carousel::cuda {
namespace {

// A build with sm_80's code alone runs on an H100 too, but its kernels know no clusters.
TEST(CudaStream, ClustersNeedTheGpuAndCodeForIt) {
  CAROUSEL_REQUIRE_CUDA();
  const DeviceInfo& info = Stream(testing::kGpu).info();
  EXPECT_EQ(info.clusters, info.major == 9 && CAROUSEL_BUILDS_SM_90);
}

}  // namespace
}  // namespace carousel::cuda
