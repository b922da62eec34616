// Random numbers of one sample of a synthetic task.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "data/random.h"

namespace carousel {

/// A short stream of words for (seed, stream, step, sample); nothing is shared between samples.
class TaskRandom {
 public:
  TaskRandom(std::uint64_t seed, DataStream stream, std::uint32_t step, std::uint32_t sample)
      : seed_(seed), stream_(stream), step_(step), sample_(sample) {}

  /// Uniform in [0, n), n >= 1, up to a bias below n/2^32.
  std::int32_t below(std::int64_t n) {
    if (used_ == 4) {
      words_ = data_words(seed_, stream_, step_, sample_, block_++);
      used_ = 0;
    }
    const std::uint64_t product = std::uint64_t{words_.x[used_++]} * static_cast<std::uint64_t>(n);
    return static_cast<std::int32_t>(product >> 32);
  }

  /// `count` distinct numbers of [0, n), in random order.
  std::vector<std::int32_t> distinct(std::int32_t count, std::int64_t n) {
    std::vector<std::int32_t> numbers(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<std::int32_t>(i);
    for (std::int32_t i = 0; i < count; ++i) {
      const auto at = static_cast<std::size_t>(i);
      std::swap(numbers[at], numbers[at + static_cast<std::size_t>(below(n - i))]);
    }
    numbers.resize(static_cast<std::size_t>(count));
    return numbers;
  }

 private:
  std::uint64_t seed_;
  DataStream stream_;
  std::uint32_t step_;
  std::uint32_t sample_;
  std::uint32_t block_ = 0;
  PhiloxWords words_{};
  int used_ = 4;
};

}  // namespace carousel
