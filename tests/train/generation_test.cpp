#include "train/generation.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <map>

namespace carousel {
namespace {

std::map<std::int32_t, int> draw_many(std::span<const float> logits, const SamplingOptions& options,
                                      int n) {
  std::map<std::int32_t, int> counts;
  for (int j = 0; j < n; ++j)
    ++counts[sample_token(logits, options, static_cast<std::uint64_t>(j))];
  return counts;
}

TEST(SampleToken, FollowsTheSoftmaxAtItsTemperature) {
  const std::array<float, 3> logits = {0.0f, 1.0f, 2.0f};
  constexpr int kN = 20000;
  const auto counts = draw_many(logits, {.temperature = 0.5, .seed = 3}, kN);
  const double total = 1.0 + std::exp(2.0) + std::exp(4.0);
  for (const auto& [token, count] : counts) {
    const double p = std::exp(2.0 * token) / total;
    EXPECT_NEAR(count / static_cast<double>(kN), p, 4.0 * std::sqrt(p * (1 - p) / kN)) << token;
  }
}

TEST(SampleToken, TemperatureZeroTakesTheLargest) {
  const std::array<float, 4> logits = {0.0f, 5.0f, 2.0f, 4.9f};
  EXPECT_EQ(draw_many(logits, {.temperature = 0.0}, 50), (std::map<std::int32_t, int>{{1, 50}}));
}

TEST(SampleToken, TakesNoneBeyondTheVocabulary) {
  const std::array<float, 4> logits = {0.0f, 1.0f, 9.0f, 8.0f};
  EXPECT_EQ(draw_many(logits, {.temperature = 0.0, .vocab_size = 2}, 9),
            (std::map<std::int32_t, int>{{1, 9}}));
  EXPECT_EQ(draw_many(logits, {.vocab_size = 2}, 200).size(), 2u);
  EXPECT_EQ(draw_many(logits, {.temperature = 0.0, .vocab_size = 10}, 1).begin()->first, 2);
}

TEST(SampleToken, TopKNeverLeavesTheKMostLikely) {
  const std::array<float, 5> logits = {0.0f, 0.1f, 0.3f, 0.2f, -1.0f};
  const auto counts = draw_many(logits, {.top_k = 2}, 2000);
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_TRUE(counts.contains(2) && counts.contains(3));
}

TEST(SampleToken, TopPKeepsTheSmallestSetThatReachesP) {
  const std::array<float, 3> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  EXPECT_EQ(draw_many(logits, {.top_p = 0.5}, 500).size(), 1u);
  EXPECT_EQ(draw_many(logits, {.top_p = 0.6}, 500).size(), 2u);
  EXPECT_EQ(draw_many(logits, {.top_p = 1.0}, 500).size(), 3u);
}

TEST(SampleToken, TheSameSeedGivesTheSameDraws) {
  std::array<float, 64> logits{};
  const SamplingOptions a{.seed = 1};
  const SamplingOptions b{.seed = 2};
  int equal = 0;
  for (std::uint64_t j = 0; j < 100; ++j) {
    EXPECT_EQ(sample_token(logits, a, j), sample_token(logits, a, j));
    equal += sample_token(logits, a, j) == sample_token(logits, b, j);
  }
  EXPECT_LT(equal, 20);
}

TEST(SampleToken, RefusesBadOptionsAndNonFiniteLogits) {
  const std::array<float, 2> logits = {0.0f, 1.0f};
  EXPECT_THROW(sample_token(logits, {.temperature = -1.0}, 0), UsageError);
  EXPECT_THROW(sample_token(logits, {.top_k = -1}, 0), UsageError);
  EXPECT_THROW(sample_token(logits, {.top_p = 0.0}, 0), UsageError);
  EXPECT_THROW(sample_token(logits, {.top_p = 1.1}, 0), UsageError);
  const std::array<float, 2> bad = {0.0f, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_THROW(sample_token(bad, {}, 0), NonFiniteError);
}

}  // namespace
}  // namespace carousel
