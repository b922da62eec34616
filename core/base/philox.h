// Counter-based random numbers: every draw is a pure function of (seed, step, stream, element), so
// no generator state exists, nothing needs saving, and any thread or device computes any element.
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), Philox4x32-10.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "core/base/host_device.h"

namespace carousel {

/// Four independent 32-bit words.
struct PhiloxWords {
  std::uint32_t x[4];
};

/// Philox4x32-10: `counter` enciphered under the two key words.
CAROUSEL_HOST_DEVICE PhiloxWords philox4x32(PhiloxWords counter, std::uint32_t key0,
                                            std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * counter.x[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * counter.x[2];
    counter = PhiloxWords{{static_cast<std::uint32_t>(p1 >> 32) ^ counter.x[1] ^ key0,
                           static_cast<std::uint32_t>(p1),
                           static_cast<std::uint32_t>(p0 >> 32) ^ counter.x[3] ^ key1,
                           static_cast<std::uint32_t>(p0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

/// Identifies one random tensor: the run's seed, the training step, and which tensor of the step.
struct RandomKey {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  std::uint32_t tensor = 0;
};

/// The four words for elements 4·block … 4·block + 3 of the tensor that `key` names.
CAROUSEL_HOST_DEVICE PhiloxWords philox_block(const RandomKey& key, std::uint64_t block) {
  return philox4x32(PhiloxWords{{static_cast<std::uint32_t>(block),
                                 static_cast<std::uint32_t>(block >> 32), key.step, key.tensor}},
                    static_cast<std::uint32_t>(key.seed),
                    static_cast<std::uint32_t>(key.seed >> 32));
}

/// Word for one element; element e is word e % 4 of block e / 4.
CAROUSEL_HOST_DEVICE std::uint32_t philox_word(const RandomKey& key, std::uint64_t element) {
  return philox_block(key, element / 4).x[element % 4];
}

/// Maps a word to [0, 1) with 24 bits, exactly representable in float.
CAROUSEL_HOST_DEVICE float uniform_from_word(std::uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1.0p-24f;
}

/// Uniform in [0, 1) for one element of the tensor that `key` names.
CAROUSEL_HOST_DEVICE float philox_uniform(const RandomKey& key, std::uint64_t element) {
  return uniform_from_word(philox_word(key, element));
}

/// Standard normal for one element (Box–Muller on two of the four words of block `element`; host
/// only, float64 inside, so that initial weights are the same on every machine and device).
inline double philox_normal(const RandomKey& key, std::uint64_t element) {
  const PhiloxWords w = philox_block(key, element);
  const double u1 = (static_cast<double>(w.x[0]) + 1.0) * 0x1.0p-32;  // (0, 1]
  const double u2 = static_cast<double>(w.x[1]) * 0x1.0p-32;
  return std::sqrt(-2.0 * std::log(u1)) * std::cos(6.283185307179586 * u2);
}

}  // namespace carousel
