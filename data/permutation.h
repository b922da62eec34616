// Keyed permutations: a shuffle of [0, size) that is evaluated one index at a time, without a
// table. Source: Black and Rogaway, "Ciphers with arbitrary finite domains" (CT-RSA 2002), the
// generalised Feistel cipher with cycle walking.
#pragma once

#include <bit>
#include <cstdint>
#include <utility>

#include "core/base/error.h"
#include "data/random.h"

namespace carousel {

class KeyedPermutation {
 public:
  /// A permutation of [0, size), 1 <= size <= 2^62, for each (seed, epoch).
  KeyedPermutation(std::uint64_t size, std::uint64_t seed, std::uint32_t epoch)
      : size_(size), seed_(seed), epoch_(epoch) {
    CAROUSEL_CHECK(1 <= size && size <= std::uint64_t{1} << 62, "a permutation of {}", size);
    half_bits_ = std::max(1, (static_cast<int>(std::bit_width(size - 1)) + 1) / 2);
  }

  /// The image of `index` < size; expected time O(1).
  std::uint64_t operator()(std::uint64_t index) const {
    CAROUSEL_CHECK(index < size_, "index {} of a permutation of {}", index, size_);
    // The cipher permutes a domain of less than 4·size + 4; following its cycle until it returns
    // into [0, size) is again a permutation.
    do {
      index = encipher(index);
    } while (index >= size_);
    return index;
  }

 private:
  // Four rounds would do for large domains (Luby–Rackoff); small ones mix better with more.
  static constexpr std::uint32_t kRounds = 8;

  std::uint64_t encipher(std::uint64_t value) const {
    const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
    std::uint64_t left = value >> half_bits_;
    std::uint64_t right = value & mask;
    for (std::uint32_t round = 0; round < kRounds; ++round) {
      const PhiloxWords words =
          data_words(seed_, DataStream::kOrder, static_cast<std::uint32_t>(right), epoch_, round);
      left = std::exchange(right, left ^ (words.x[0] & mask));
    }
    return left << half_bits_ | right;
  }

  std::uint64_t size_;
  std::uint64_t seed_;
  std::uint32_t epoch_;
  int half_bits_;
};

}  // namespace carousel
