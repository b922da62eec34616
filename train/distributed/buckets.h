// Pure arithmetic of data parallelism: how the arenas are cut.
#pragma once

#include <cstdint>
#include <vector>

#include "layers/parameters.h"

namespace carousel {

/// A part of the gradient arena that is reduced at once.
struct Bucket {
  ArenaRange range;
  bool replicated = false;  ///< its optimizer state is every rank's
};

/// Cuts [0, arena_size) into buckets of about `elements`, in the order in which a backward
/// completes them: from replicated_begin downwards, the replicated rest last. Every bucket divides
/// into world_size pieces of a multiple of ParameterSet::kAlignment elements, as both arguments
/// must.
std::vector<Bucket> make_buckets(std::int64_t replicated_begin, std::int64_t arena_size,
                                 std::int64_t elements, int world_size);

/// Elements of the largest bucket.
std::int64_t largest_bucket(const std::vector<Bucket>& buckets);

/// What rank `rank` owns of a sharded bucket.
ArenaRange owned_piece(const Bucket& bucket, int rank, int world_size);
/// What rank `rank` owns of each sharded bucket, and the replicated ones, sorted.
std::vector<ArenaRange> owned_ranges(const std::vector<Bucket>& buckets, int rank, int world_size);

}  // namespace carousel
