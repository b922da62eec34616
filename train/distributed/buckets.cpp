#include "train/distributed/buckets.h"

#include <algorithm>

#include "core/base/error.h"

namespace carousel {

std::vector<Bucket> make_buckets(std::int64_t replicated_begin, std::int64_t arena_size,
                                 std::int64_t elements, int world_size) {
  const std::int64_t unit = ParameterSet::kAlignment * world_size;
  CAROUSEL_CHECK(replicated_begin % unit == 0 && arena_size % unit == 0,
                 "arenas of {} and {} elements for {} ranks", replicated_begin, arena_size,
                 world_size);
  const std::int64_t size = std::max<std::int64_t>(1, elements / unit) * unit;
  std::vector<Bucket> buckets;
  for (std::int64_t end = replicated_begin; end > 0; end -= size) {
    buckets.push_back({{std::max<std::int64_t>(0, end - size), end}, false});
  }
  if (arena_size > replicated_begin) buckets.push_back({{replicated_begin, arena_size}, true});
  return buckets;
}

std::int64_t largest_bucket(const std::vector<Bucket>& buckets) {
  std::int64_t largest = 0;
  for (const Bucket& b : buckets) largest = std::max(largest, b.range.size());
  return largest;
}

ArenaRange owned_piece(const Bucket& bucket, int rank, int world_size) {
  const std::int64_t piece = bucket.range.size() / world_size;
  const std::int64_t begin = bucket.range.begin + piece * rank;
  return {begin, begin + piece};
}

std::vector<ArenaRange> owned_ranges(const std::vector<Bucket>& buckets, int rank, int world_size) {
  std::vector<ArenaRange> owned;
  for (const Bucket& b : buckets) {
    owned.push_back(b.replicated ? b.range : owned_piece(b, rank, world_size));
  }
  std::ranges::sort(owned, {}, &ArenaRange::begin);
  return owned;
}

}  // namespace carousel
