#include <gtest/gtest.h>

#include "layers/mlstm/cuda/plan.h"

namespace carousel::mlstm::cuda {
namespace {

constexpr int kH100 = 132;  // multiprocessors

Problem problem(int batch, int time, int heads, int dqk, int dv) {
  Problem p;
  p.batch = batch;
  p.time = time;
  p.heads = heads;
  p.dqk = dqk;
  p.dv = dv;
  p.blocks = (time + kChunk - 1) / kChunk * kChunkBlocks;
  return p;
}

void expect_covers(const Problem& p, const WalkPlan& plan) {
  EXPECT_GE(plan.dqk, p.dqk);
  EXPECT_GE(plan.slices * plan.tiles * 128, p.dv);
  EXPECT_EQ(plan.blocks_per_segment % kChunkBlocks, 0) << "states are saved at chunk borders";
  EXPECT_GE(plan.segments * plan.blocks_per_segment, p.blocks);
  EXPECT_LT((plan.segments - 1) * plan.blocks_per_segment, p.blocks) << "no empty segment";
}

TEST(MlstmWalkPlan, CoversEveryProblem) {
  for (const int time : {1, 64, 127, 128, 129, 2047, 8192, 65536}) {
    for (const int units : {1, 3, 8, 64, 500}) {
      for (const int dqk : {8, 64, 96, 128, 136, 256}) {
        for (const int dv : {8, 64, 128, 192, 512}) {
          const Problem p = problem(1, time, units, dqk, dv);
          expect_covers(p, plan_walk(p, kH100));
        }
      }
    }
  }
}

TEST(MlstmWalkPlan, ManyHeadsAreWalkedWhole) {
  EXPECT_EQ(plan_walk(problem(8, 8192, 8, 256, 512), kH100).segments, 1);
  EXPECT_EQ(plan_walk(problem(32, 2048, 8, 256, 512), kH100).segments, 1);
}

TEST(MlstmWalkPlan, FewHeadsAreCutIntoSegmentsThatFillTheChip) {
  const Problem p = problem(1, 65536, 8, 256, 512);
  const WalkPlan plan = plan_walk(p, kH100);
  EXPECT_GT(plan.segments, 1);
  EXPECT_GE(p.units() * plan.slices * plan.segments, kH100 / 2);
}

TEST(MlstmWalkPlan, WideStatesStayWithinTheRegisters) {
  EXPECT_EQ(plan_walk(problem(8, 8192, 8, 256, 512), kH100).tiles, 1);
  EXPECT_EQ(plan_walk(problem(8, 8192, 16, 128, 128), kH100).tiles, 1) << "one tile covers dv";
}

TEST(MlstmWalkPlan, ClustersAreAsLargeAsRoundsAllow) {
  EXPECT_EQ(pick_cluster(256, {0, 132, 66, 0, 33}), 4);
  EXPECT_EQ(pick_cluster(256, {0, 132, 66, 0, 20}), 2) << "too few of four fit: twice the rounds";
  EXPECT_EQ(pick_cluster(256, {0, 132, 0, 0, 0}), 1) << "no larger size divides the slices";
}

TEST(MlstmWalkPlan, HopperTakesWholeVectorsOnly) {
  EXPECT_TRUE(hopper_takes(96, 192));
  EXPECT_TRUE(hopper_takes(256, 1024));
  EXPECT_FALSE(hopper_takes(264, 512));
  EXPECT_FALSE(hopper_takes(100, 512));
  EXPECT_FALSE(hopper_takes(128, 100));
}

}  // namespace
}  // namespace carousel::mlstm::cuda
