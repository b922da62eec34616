// Random words of the data floor: functions of the run's seed, a purpose and a counter.
#pragma once

#include <cstdint>

#include "core/base/philox.h"

namespace carousel {

enum class DataStream : std::uint32_t { kOrder = 1, kGridOffset, kTaskTrain, kTaskValidation };

/// Four words for (seed, stream, a, b, c), independent of the words that initialisation and dropout
/// draw under the same seed.
inline PhiloxWords data_words(std::uint64_t seed, DataStream stream, std::uint32_t a,
                              std::uint32_t b, std::uint32_t c) {
  constexpr std::uint64_t kDataKey = 0xDA7A'5EED'CA40'05E1u;
  const std::uint64_t key = seed ^ kDataKey;
  return philox4x32(PhiloxWords{{a, b, c, static_cast<std::uint32_t>(stream)}},
                    static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32));
}

}  // namespace carousel
