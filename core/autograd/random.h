// Random numbers inside a step: ops draw keys in program order, and the key of each draw is a
// function of (seed, step, micro-batch, order of the draw) alone.
#pragma once

#include <cstdint>

#include "core/base/philox.h"

namespace carousel {

/// Draws made in this thread while it lives belong to (seed, step, micro_batch). micro_batch is
/// the global index within the step, below 2^20, so that results do not depend on the world size.
class RandomScope {
 public:
  RandomScope(std::uint64_t seed, std::uint32_t step, std::uint32_t micro_batch = 0);
  ~RandomScope();
  RandomScope(const RandomScope&) = delete;
  RandomScope& operator=(const RandomScope&) = delete;

 private:
  RandomKey previous_;
};

/// The key of the next random tensor in this thread; at most 4096 a micro-batch.
RandomKey next_random_key();
/// The position in the sequence of keys, to replay a part of it (recompute).
RandomKey random_position();
void set_random_position(const RandomKey& position);

}  // namespace carousel
