#include "train/distributed/buckets.h"

#include <gtest/gtest.h>

namespace carousel {
namespace {

// Every element lies in one bucket, and in what one rank owns of it.
void expect_partition(std::int64_t sharded, std::int64_t replicated, std::int64_t elements,
                      int world) {
  const std::int64_t size = sharded + replicated;
  const auto buckets = make_buckets(sharded, size, elements, world);
  std::vector<int> covered(static_cast<std::size_t>(size));
  std::int64_t end = sharded;
  std::int64_t largest = 0;
  for (const Bucket& b : buckets) {
    largest = std::max(largest, b.range.size());
    EXPECT_EQ(b.range.size() % (64 * world), 0);
    if (b.replicated) {
      EXPECT_EQ(b.range.begin, sharded);
      EXPECT_EQ(&b, &buckets.back());
    } else {
      EXPECT_EQ(b.range.end, end);
      EXPECT_LE(b.range.size(), std::max<std::int64_t>(elements, 64 * world));
      end = b.range.begin;
    }
  }
  EXPECT_EQ(end, 0);
  EXPECT_EQ(largest_bucket(buckets), largest);
  for (int r = 0; r < world; ++r) {
    std::int64_t last = 0;
    for (const ArenaRange& part : owned_ranges(buckets, r, world)) {
      EXPECT_GE(part.begin, last);
      last = part.end;
      for (auto e = part.begin; e < part.end; ++e) ++covered[static_cast<std::size_t>(e)];
    }
  }
  for (std::int64_t e = 0; e < size; ++e) {
    ASSERT_EQ(covered[static_cast<std::size_t>(e)], e < sharded ? 1 : world) << e;
  }
}

TEST(Buckets, CoverTheArenasOnce) {
  for (const int world : {1, 2, 3, 8}) {
    const std::int64_t unit = 64 * world;
    for (const std::int64_t elements : {std::int64_t{1}, unit, 2 * unit + 5, 100 * unit}) {
      expect_partition(7 * unit, 2 * unit, elements, world);
      expect_partition(7 * unit, 0, elements, world);
      expect_partition(0, unit, elements, world);
    }
  }
}

TEST(Buckets, RefuseArenasThatDoNotDivide) {
  EXPECT_THROW(make_buckets(64, 128, 64, 2), InternalError);
}

}  // namespace
}  // namespace carousel
