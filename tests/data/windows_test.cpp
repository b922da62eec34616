#include "data/windows.h"

#include <gtest/gtest.h>

#include <set>

namespace carousel {
namespace {

TEST(WindowOrder, NeverRunsPastTheEnd) {
  for (const std::int64_t seq_len : {1, 2, 3, 7, 16}) {
    for (std::int64_t tokens = seq_len + 1; tokens < 6 * seq_len + 3; ++tokens) {
      const WindowOrder order(tokens, seq_len, 11);
      ASSERT_GE(order.windows_per_epoch(), 1);
      for (std::int64_t k = 0; k < 5 * order.windows_per_epoch(); ++k) {
        ASSERT_GE(order.start(k), 0);
        ASSERT_LE(order.start(k) + seq_len + 1, tokens) << tokens << " " << seq_len << " " << k;
      }
    }
  }
}

TEST(WindowOrder, EachEpochVisitsEachWindowOfItsGridOnce) {
  const WindowOrder order(1000, 13, 4);
  const std::int64_t windows = order.windows_per_epoch();
  EXPECT_EQ(windows, 1000 / 13 - 1);
  for (std::uint32_t epoch = 0; epoch < 5; ++epoch) {
    std::set<std::int64_t> starts;
    for (std::int64_t i = 0; i < windows; ++i) starts.insert(order.start(epoch * windows + i));
    EXPECT_EQ(static_cast<std::int64_t>(starts.size()), windows);
    EXPECT_EQ(*starts.begin(), order.offset(epoch));
    EXPECT_EQ(*starts.rbegin(), order.offset(epoch) + (windows - 1) * 13);
    for (const std::int64_t start : starts) EXPECT_EQ((start - order.offset(epoch)) % 13, 0);
  }
}

TEST(WindowOrder, EpochsCutTheTextAtAllPlaces) {
  const WindowOrder order(1000, 13, 4);
  std::set<std::int64_t> offsets;
  for (std::uint32_t epoch = 0; epoch < 200; ++epoch) offsets.insert(order.offset(epoch));
  EXPECT_EQ(offsets.size(), 13u);
}

TEST(WindowOrder, UsesTheOnlyWindowOfTheShortestCorpus) {
  const WindowOrder order(9, 8, 4);
  EXPECT_EQ(order.windows_per_epoch(), 1);
  for (std::int64_t k = 0; k < 20; ++k) EXPECT_EQ(order.start(k), 0);
  EXPECT_THROW(WindowOrder(8, 8, 4), InternalError);
}

TEST(WindowOrder, IsAFunctionOfSeedAndSample) {
  const auto first = [](std::uint64_t seed) {
    const WindowOrder order(100'000, 10, seed);
    std::vector<std::int64_t> starts;
    for (std::int64_t k = 0; k < 50; ++k) starts.push_back(order.start(k));
    return starts;
  };
  EXPECT_EQ(first(1), first(1));
  EXPECT_NE(first(1), first(2));
}

TEST(WindowOrder, ReachesFarSamplesAtOnce) {
  const WindowOrder order(std::int64_t{1} << 50, 1024, 1);
  const std::int64_t start = order.start((std::int64_t{1} << 55) + 12345);
  EXPECT_GE(start, 0);
  EXPECT_LE(start + 1025, std::int64_t{1} << 50);
}

}  // namespace
}  // namespace carousel
