#include "train/generation.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/philox.h"

namespace carousel {
namespace {

constexpr std::int64_t kPrefillPiece = 1024;  // bounds the activations of a long prompt

struct Candidate {
  std::int32_t token;
  double probability;
};

// Softmax at the temperature over the k most likely tokens, most likely first.
std::vector<Candidate> ranked(std::span<const float> logits, double temperature, int top_k) {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const std::size_t keep =
      top_k > 0 ? std::min(static_cast<std::size_t>(top_k), order.size()) : order.size();
  const auto more_likely = [&](std::int32_t a, std::int32_t b) {
    const float la = logits[static_cast<std::size_t>(a)];
    const float lb = logits[static_cast<std::size_t>(b)];
    return la != lb ? la > lb : a < b;
  };
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(keep), order.end(),
                    more_likely);
  order.resize(keep);
  const double largest = logits[static_cast<std::size_t>(order.front())];
  std::vector<Candidate> out;
  double total = 0.0;
  for (const std::int32_t token : order) {
    const double p = std::exp((logits[static_cast<std::size_t>(token)] - largest) / temperature);
    out.push_back({token, p});
    total += p;
  }
  for (Candidate& c : out) c.probability /= total;
  return out;
}

// Keeps the shortest head of the ranking whose probability reaches p.
void keep_nucleus(std::vector<Candidate>& candidates, double top_p) {
  double reached = 0.0;
  std::size_t keep = 0;
  while (keep < candidates.size() && reached < top_p) reached += candidates[keep++].probability;
  candidates.resize(keep);
}

}  // namespace

std::int32_t sample_token(std::span<const float> logits, const SamplingOptions& options,
                          std::uint64_t draw) {
  if (options.vocab_size > 0) {
    logits = logits.first(std::min(logits.size(), static_cast<std::size_t>(options.vocab_size)));
  }
  if (!(options.temperature >= 0.0) || !std::isfinite(options.temperature)) {
    throw UsageError("temperature is {}, must be 0 or positive", options.temperature);
  }
  if (options.top_k < 0)
    throw UsageError("top_k is {}, must be 0 (off) or positive", options.top_k);
  if (!(options.top_p > 0.0 && options.top_p <= 1.0)) {
    throw UsageError("top_p is {}, must be in (0, 1]", options.top_p);
  }
  if (!std::ranges::all_of(logits, [](float z) { return std::isfinite(z); })) {
    throw NonFiniteError("the model's logits are not finite; its weights are damaged");
  }
  if (options.temperature == 0.0) {
    return static_cast<std::int32_t>(std::ranges::max_element(logits) - logits.begin());
  }
  std::vector<Candidate> candidates = ranked(logits, options.temperature, options.top_k);
  if (options.top_p < 1.0) keep_nucleus(candidates, options.top_p);
  double total = 0.0;
  for (const Candidate& c : candidates) total += c.probability;
  double target = total * philox_uniform({options.seed, 0, 0}, draw);
  for (const Candidate& c : candidates) {
    target -= c.probability;
    if (target < 0.0) return c.token;
  }
  return candidates.back().token;  // rounding left a sliver at the end
}

void generate(const LanguageModel& model, std::span<const std::int32_t> prompt,
              std::int64_t max_tokens, const SamplingOptions& options,
              const std::function<bool(std::int32_t)>& on_token) {
  if (prompt.empty()) throw UsageError("the prompt is empty; give at least one token");
  const Device device = model.parameters().master().device();
  const RoleScope role(Role::kActivations);
  ModelState state;
  Tensor logits;
  const auto feed = [&](std::span<const std::int32_t> tokens) {
    const Shape shape{1, static_cast<std::int64_t>(tokens.size())};
    logits = next_token_logits(model, Tensor::from<std::int32_t>(tokens, shape, device), state);
  };
  for (std::size_t begin = 0; begin < prompt.size(); begin += kPrefillPiece) {
    feed(prompt.subspan(begin, std::min<std::size_t>(kPrefillPiece, prompt.size() - begin)));
  }
  for (std::int64_t j = 0; j < max_tokens; ++j) {
    const auto token =
        sample_token(logits.to_vector<float>(), options, static_cast<std::uint64_t>(j));
    if (!on_token(token)) return;
    if (j + 1 < max_tokens) feed(std::span(&token, 1));
  }
}

}  // namespace carousel
