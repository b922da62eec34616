#include "data/permutation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <vector>

namespace carousel {
namespace {

std::vector<std::uint64_t> image(std::uint64_t size, std::uint64_t seed, std::uint32_t epoch) {
  const KeyedPermutation permutation(size, seed, epoch);
  std::vector<std::uint64_t> values(size);
  for (std::uint64_t i = 0; i < size; ++i) values[i] = permutation(i);
  return values;
}

bool is_bijection(std::vector<std::uint64_t> values) {
  std::ranges::sort(values);
  for (std::uint64_t i = 0; i < values.size(); ++i) {
    if (values[i] != i) return false;
  }
  return true;
}

TEST(KeyedPermutation, IsABijectionForEverySize) {
  for (std::uint64_t size = 1; size <= 300; ++size) {
    EXPECT_TRUE(is_bijection(image(size, size * 31, 2))) << size;
  }
  for (const std::uint64_t size : {1023u, 1024u, 1025u, 4095u, 4097u, 10007u}) {
    EXPECT_TRUE(is_bijection(image(size, 5, 0))) << size;
  }
}

TEST(KeyedPermutation, StaysInRangeForHugeSizes) {
  for (const std::uint64_t size :
       {(1ull << 32) - 1, (1ull << 32) + 1, (1ull << 61) + 3, 1ull << 62}) {
    const KeyedPermutation permutation(size, 9, 1);
    for (std::uint64_t i = 0; i < 50; ++i) EXPECT_LT(permutation(size - 1 - i), size);
  }
  EXPECT_THROW(KeyedPermutation(0, 1, 1), InternalError);
  EXPECT_THROW(KeyedPermutation((1ull << 62) + 1, 1, 1), InternalError);
  EXPECT_THROW(KeyedPermutation(5, 1, 1)(5), InternalError);
}

TEST(KeyedPermutation, DependsOnSeedAndEpoch) {
  EXPECT_EQ(image(101, 1, 1), image(101, 1, 1));
  EXPECT_NE(image(101, 1, 1), image(101, 2, 1));
  EXPECT_NE(image(101, 1, 1), image(101, 1ull << 40 | 1, 1));
  EXPECT_NE(image(101, 1, 1), image(101, 1, 2));
}

// All 24 orders of four windows appear about equally often over seeds: χ² with 23 degrees of
// freedom exceeds 49.7 with probability 0.001; the seeds are fixed, so the test is not random.
TEST(KeyedPermutation, SmallOrdersAreEquallyLikely) {
  std::map<std::vector<std::uint64_t>, int> counts;
  constexpr int kDraws = 4800;
  for (int seed = 0; seed < kDraws; ++seed) ++counts[image(4, static_cast<std::uint64_t>(seed), 0)];
  EXPECT_EQ(counts.size(), 24u);
  double chi2 = 0.0;
  for (const auto& [order, count] : counts)
    chi2 += std::pow(count - kDraws / 24.0, 2) / (kDraws / 24.0);
  EXPECT_LT(chi2, 49.7);
}

// In a random order neighbours are unrelated: the fixed points of a permutation are Poisson(1), and
// the correlation of successive values is within a few 1/√n of zero.
TEST(KeyedPermutation, LeavesNoFixedPattern) {
  double fixed_points = 0.0;
  constexpr int kOrders = 400;
  constexpr std::uint64_t kSize = 997;
  for (int epoch = 0; epoch < kOrders; ++epoch) {
    const auto values = image(kSize, 3, static_cast<std::uint32_t>(epoch));
    double covariance = 0.0;
    int ascents = 0;
    for (std::uint64_t i = 0; i < kSize; ++i) {
      if (values[i] == i) fixed_points += 1.0;
      if (i == 0) continue;
      const double mean = (kSize - 1) / 2.0;
      covariance +=
          (static_cast<double>(values[i]) - mean) * (static_cast<double>(values[i - 1]) - mean);
      ascents += values[i] > values[i - 1];
    }
    const double correlation = covariance / (std::pow(kSize, 3) / 12.0);
    EXPECT_LT(std::abs(correlation), 5.0 / std::sqrt(kSize)) << epoch;
    EXPECT_LT(std::abs(ascents - 498.0), 5.0 * std::sqrt(kSize / 12.0)) << epoch;
  }
  EXPECT_NEAR(fixed_points / kOrders, 1.0, 5.0 / std::sqrt(kOrders));
}

}  // namespace
}  // namespace carousel
