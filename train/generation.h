// Text generation with recurrent state: memory and time per token do not grow with the position.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "layers/language_model.h"

namespace carousel {

struct SamplingOptions {
  double temperature = 1.0;     ///< 0: always the most likely token
  int top_k = 0;                ///< keep the k most likely tokens; 0: all
  double top_p = 1.0;           ///< then keep the smallest set whose probability reaches p
  std::int64_t vocab_size = 0;  ///< tokens below it are drawn, as a model may have more; 0: all
  std::uint64_t seed = 0;       ///< draw j uses Philox(seed, j): the same seed, the same text
};

/// Draws a token from `logits` (V values). `draw` is the index of the draw. Throws UsageError on
/// options out of range, NonFiniteError if the logits are not finite.
std::int32_t sample_token(std::span<const float> logits, const SamplingOptions& options,
                          std::uint64_t draw);

/// Feeds `prompt` (at least one token; long ones in pieces, chunkwise), then generates up to
/// `max_tokens` tokens one by one and calls on_token for each; stops early when that returns false.
void generate(const LanguageModel& model, std::span<const std::int32_t> prompt,
              std::int64_t max_tokens, const SamplingOptions& options,
              const std::function<bool(std::int32_t)>& on_token);

}  // namespace carousel
