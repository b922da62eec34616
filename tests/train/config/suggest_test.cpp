#include "train/config/suggest.h"

#include <gtest/gtest.h>

#include <vector>

namespace carousel {
namespace {

TEST(EditDistance, CountsInsertionsDeletionsSubstitutionsAndSwaps) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("abc", ""), 3);
  EXPECT_EQ(edit_distance("steps", "step"), 1);
  EXPECT_EQ(edit_distance("cosine", "cosime"), 1);
  EXPECT_EQ(edit_distance("weigth_decay", "weight_decay"), 1);  // a swap is one edit
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
}

TEST(Closest, SuggestsSlipsOfThePenAndNothingElse) {
  const std::vector<std::string> keys{"lr", "beta1", "beta2", "weight_decay"};
  EXPECT_EQ(closest("weigth_decay", keys), "weight_decay");
  EXPECT_EQ(closest("beta", keys), "beta1");  // the first of equals
  EXPECT_EQ(closest("rl", keys), "lr");
  EXPECT_EQ(closest("momentum", keys), std::nullopt);
  EXPECT_EQ(closest("xy", keys), std::nullopt);
  EXPECT_EQ(closest(std::string(100000, 'a'), keys), std::nullopt);
  EXPECT_EQ(closest("lr", {}), std::nullopt);
}

}  // namespace
}  // namespace carousel
