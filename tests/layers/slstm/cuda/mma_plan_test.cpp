#include "layers/slstm/cuda/mma_plan.h"

#include <gtest/gtest.h>

#include <array>

namespace carousel::slstm {
namespace {

constexpr int kH100 = 132;

TEST(SlstmMmaPlan, CoversEveryHeadWithinTheLimits) {
  constexpr std::size_t kMostShared = 227 << 10;
  for (int size = 1; size <= 768; ++size) {
    for (const std::int64_t batch : {1, 7, 64, 1000}) {
      const auto plan = mma_plan(batch, 3, size, kH100, true);
      ASSERT_TRUE(plan.has_value()) << size;
      EXPECT_GE(plan->cluster * plan->slice, size);
      EXPECT_GE(plan->padded, plan->cluster * plan->slice);
      EXPECT_LE(plan->cluster, kWholeCluster);
      EXPECT_EQ(plan->slice % kMmaUnit, 0);
      EXPECT_EQ(plan->splits_forward(), size > 256);
      EXPECT_LE(plan->threads(), kMaxThreads);
      EXPECT_LE(plan->rows, kMmaColumns);
      // Whole pairs of tiles forward and whole fours backward, in registers and out of them.
      EXPECT_EQ(plan->forward_held % 2, 0);
      EXPECT_EQ(plan->backward_held % 4, 0);
      EXPECT_GE(plan->forward_tiles(), plan->forward_held) << size;
      EXPECT_GE(plan->backward_tiles(), plan->backward_held) << size;
      EXPECT_EQ((plan->forward_tiles() - plan->forward_held) % 2, 0) << size;
      EXPECT_EQ((plan->backward_tiles() - plan->backward_held) % 4, 0) << size;
      EXPECT_LE(mma_forward_shared_bytes(*plan), kMostShared) << size;
      EXPECT_LE(mma_backward_shared_bytes(*plan), kMostShared) << size;
    }
  }
}

TEST(SlstmMmaPlan, WeightsLeaveRegistersForTheRest) {
  for (int size = 1; size <= 768; ++size) {
    const auto plan = mma_plan(16, 3, size, kH100, true);
    const int registers = 65536 / plan->threads();
    if (plan->splits_forward()) {
      EXPECT_LE(4 * plan->forward_held * (plan->slice / kMmaUnit), kSplitRegisters - 48) << size;
    } else {
      EXPECT_LE(8 * plan->forward_held, registers - 64) << size;
    }
    EXPECT_LE(4 * plan->backward_held, registers - 64) << size;
  }
}

TEST(SlstmMmaPlan, SplitWarpsPassOnTheRegistersThatTheyWereStartedWith) {
  constexpr int kUnit = 8;  // registers are given out by eights
  constexpr int kStarted = 65536 / kSplitThreads / kUnit * kUnit;
  EXPECT_EQ(kSplitCellRegisters % kUnit, 0);
  EXPECT_EQ(kSplitRegisters % kUnit, 0);
  EXPECT_LE(kSplitCellRegisters, kStarted);
  EXPECT_GE(kSplitRegisters, kStarted);
  EXPECT_LE(kSplitCellThreads * kSplitCellRegisters + 32 * kSplitWarps * kSplitRegisters,
            kSplitThreads * kStarted)
      << "those who multiply would wait for registers for ever";
}

TEST(SlstmMmaPlan, SplitForwardReachesEveryTileAndElement) {
  EXPECT_EQ(kSplitWarps, 2 * 4) << "a half of the inputs and a gate each";
  for (int size = 257; size <= 768; ++size) {
    for (const std::int64_t batch : {1, 3, 7, 64, 1000}) {
      const auto plan = mma_plan(batch, 2, size, kH100, true);
      ASSERT_TRUE(plan.has_value() && plan->splits_forward()) << size;
      // The kernel's instances: dimensions of a block, tiles of a warp, those in registers.
      const std::array<int, 3> instance{plan->slice, plan->forward_tiles(), plan->forward_held};
      EXPECT_EQ(instance, size <= 512 ? (std::array{32, 16, 16}) : (std::array{48, 24, 12}))
          << size;
      EXPECT_EQ(2 * plan->forward_tiles() * kMmaDepth, plan->padded) << size;
      EXPECT_LE(plan->forward_tiles() - plan->forward_held, plan->forward_held)
          << "a pair from shared memory follows each pair from registers: " << size;
      EXPECT_LE(plan->rows, 4) << "two rows a thread";
      EXPECT_LE(plan->split_cells(), kSplitCellThreads) << size;
    }
  }
}

TEST(SlstmMmaPlan, WithoutClustersOnlySmallHeadsFit) {
  EXPECT_TRUE(mma_plan(1, 1, 64, 108, false).has_value());
  EXPECT_FALSE(mma_plan(1, 1, 65, 108, false).has_value());
  EXPECT_FALSE(mma_plan(1, 1, 769, kH100, true).has_value());
  EXPECT_FALSE(mma_plan(1, 1, 0, kH100, true).has_value());
}

TEST(SlstmMmaPlan, RowsGrowWithTheBatch) {
  EXPECT_EQ(mma_plan(16, 4, 64, kH100, true)->rows, 1);   // 64 blocks: every row has its own
  EXPECT_EQ(mma_plan(16, 12, 64, kH100, true)->rows, 2);  // 192 blocks would take two waves
  EXPECT_EQ(mma_plan(16, 3, 256, kH100, true)->rows, 4);  // sixteen clusters of eight fit
  EXPECT_EQ(mma_plan(16, 1, 768, kH100, true)->rows, 4);  // six clusters of sixteen fit
  EXPECT_EQ(mma_plan(64, 12, 64, kH100, true)->rows, 8);
}

}  // namespace
}  // namespace carousel::slstm
