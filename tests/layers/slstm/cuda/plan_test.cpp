#include "layers/slstm/cuda/plan.h"

#include <gtest/gtest.h>

namespace carousel::slstm {
namespace {

constexpr int kH100 = 132;

TEST(SlstmPlan, CoversEveryHeadWithinTheLimits) {
  for (int size = 1; size <= 256; ++size) {
    for (const std::int64_t batch : {1, 7, 64, 1000}) {
      const auto plan = resident_plan(batch, 3, size, kH100, true);
      ASSERT_TRUE(plan.has_value()) << size;
      EXPECT_GE(plan->cluster * plan->slice, size);
      EXPECT_LT((plan->cluster - 1) * plan->slice, size) << "a block without dimensions";
      EXPECT_LE(plan->cluster, kMaxCluster);
      EXPECT_EQ(plan->slice % 4, 0);
      for (const int lanes : {plan->forward_lanes, plan->backward_lanes}) {
        EXPECT_EQ(32 % lanes, 0) << size;
        EXPECT_EQ(lanes % plan->rows, 0) << size;
      }
      EXPECT_GE(plan->forward_lanes * kSegment, size);
      EXPECT_GE(plan->backward_lanes * kSegment, 4 * plan->slice);
      EXPECT_GE(plan->forward_threads, plan->slice * plan->forward_lanes);
      EXPECT_GE(plan->backward_threads, plan->cluster * plan->slice / 4 * plan->backward_lanes);
      EXPECT_GE(plan->backward_threads, plan->slice * plan->rows);
      for (const int threads : {plan->forward_threads, plan->backward_threads}) {
        EXPECT_LE(threads, kMaxThreads) << size;
        EXPECT_EQ(threads % 32, 0) << size;
      }
      EXPECT_LE(forward_shared_bytes(*plan), std::size_t{48} << 10);
      EXPECT_LE(backward_shared_bytes(*plan), std::size_t{64} << 10);
    }
  }
}

TEST(SlstmPlan, WithoutClustersOnlySmallHeadsFit) {
  EXPECT_TRUE(resident_plan(1, 1, 64, 108, false).has_value());
  EXPECT_FALSE(resident_plan(1, 1, 65, 108, false).has_value());
  EXPECT_FALSE(resident_plan(1, 1, 257, kH100, true).has_value());
  EXPECT_FALSE(resident_plan(1, 1, 0, kH100, true).has_value());
}

TEST(SlstmPlan, RowsGrowWithTheBatch) {
  EXPECT_EQ(resident_plan(16, 4, 64, kH100, true)->rows, 1);   // 64 blocks: every row has its own
  EXPECT_EQ(resident_plan(16, 12, 64, kH100, true)->rows, 2);  // 192 blocks would take two waves
  EXPECT_EQ(resident_plan(16, 3, 256, kH100, true)->rows, 4);  // sixteen clusters of eight fit
}

}  // namespace
}  // namespace carousel::slstm
