#include "train/evaluate.h"

#include <gtest/gtest.h>

namespace carousel {
namespace {

TEST(ByPosition, WeighsPositionsByTheirTargetsInStretchesThatDouble) {
  const EvalResult result{.targets_by_position = {1, 0, 1, 3, 0, 2},
                          .loss_by_position = {4.0, 0.0, 1.0, 5.0, 0.0, 0.25},
                          .correct_by_position = {0, 0, 1, 2, 0, 1}};
  EXPECT_EQ(by_position(result),
            "  tokens      1 to      1  loss 4.0000  accuracy   0.0 %\n"
            "  tokens      3 to      4  loss 4.0000  accuracy  75.0 %\n"
            "  tokens      5 to      6  loss 0.2500  accuracy  50.0 %\n");
}

TEST(ByPosition, SaysNothingOfPositionsWithoutTargets) {
  EXPECT_EQ(by_position({.targets_by_position = {0, 0},
                         .loss_by_position = {0.0, 0.0},
                         .correct_by_position = {0, 0}}),
            "");
}

}  // namespace
}  // namespace carousel
