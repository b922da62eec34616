// Which window of the corpus each training sample is: a function of (seed, sample number), so that
// a run resumes anywhere at once, and on any number of ranks.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/base/error.h"
#include "data/permutation.h"

namespace carousel {

/// Windows are seq_len + 1 tokens at stride seq_len: seq_len inputs, and the targets one token on.
/// Each epoch visits every window of a grid once, in a keyed order. The grid begins at a keyed
/// offset in [0, seq_len) (less if the corpus is short), so that epochs cut the text at different
/// places; one window is given up to keep the same number in every epoch.
class WindowOrder {
 public:
  /// tokens >= seq_len + 1, seq_len >= 1.
  WindowOrder(std::int64_t tokens, std::int64_t seq_len, std::uint64_t seed)
      : seq_len_(seq_len), seed_(seed) {
    CAROUSEL_CHECK(seq_len >= 1 && tokens > seq_len, "windows of {} + 1 of {} tokens", seq_len,
                   tokens);
    windows_ = std::max<std::int64_t>(1, tokens / seq_len - 1);
    max_offset_ = std::min(seq_len - 1, tokens - 1 - windows_ * seq_len);
  }

  std::int64_t windows_per_epoch() const { return windows_; }

  /// Position of the first token of sample k's window, k >= 0.
  std::int64_t start(std::int64_t k) const {
    CAROUSEL_CHECK(k >= 0, "sample {}", k);
    const auto epoch = static_cast<std::uint32_t>(k / windows_);
    const KeyedPermutation order(static_cast<std::uint64_t>(windows_), seed_, epoch);
    const auto window = static_cast<std::int64_t>(order(static_cast<std::uint64_t>(k % windows_)));
    return offset(epoch) + window * seq_len_;
  }

  /// Position of the first token of an epoch's first window.
  std::int64_t offset(std::uint32_t epoch) const {
    const PhiloxWords words = data_words(seed_, DataStream::kGridOffset, epoch, 0, 0);
    const std::uint64_t word = std::uint64_t{words.x[1]} << 32 | words.x[0];
    return static_cast<std::int64_t>(word % (static_cast<std::uint64_t>(max_offset_) + 1));
  }

 private:
  std::int64_t seq_len_;
  std::uint64_t seed_;
  std::int64_t windows_;
  std::int64_t max_offset_;
};

}  // namespace carousel
