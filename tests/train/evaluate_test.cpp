#include "train/evaluate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

#include "core/base/parallel.h"
#include "core/kernels/cross_entropy.h"
#include "layers/xlstm_large.h"
#include "tests/support/models.h"
#include "tests/support/ranks.h"

namespace carousel {
namespace {

constexpr std::int64_t kVocab = 13;
constexpr std::int64_t kSequences = 7;

// Two batches of random tokens, some of whose targets are to be ignored.
class Source final : public BatchSource {
 public:
  Source() : BatchSource(kSequences, 12, kVocab, 2) {}

  Batch batch(std::int64_t index, std::int64_t begin, std::int64_t end) const override {
    Batch batch;
    const auto seed = static_cast<std::uint64_t>(2 * index);
    batch.tokens = testing::random_tokens({kSequences, 12}, kVocab, seed).slice(begin, end);
    batch.targets = testing::random_tokens({kSequences, 12}, kVocab, seed + 1).slice(begin, end);
    const auto targets = batch.targets.data<std::int32_t>();
    std::replace(targets, targets + batch.targets.numel(), 3, kIgnoreTarget);
    batch.target_count =
        batch.targets.numel() - std::count(targets, targets + batch.targets.numel(), kIgnoreTarget);
    for (auto old = largest.load();
         !largest.compare_exchange_weak(old, std::max(old, end - begin));) {
    }
    return batch;
  }
  std::string describe(std::int64_t) const override { return ""; }

  mutable std::atomic<std::int64_t> largest{0};  // sequences that were asked for at once
};

TEST(DistEvaluate, RanksHoldNoMoreThanTheirShareOfABatchAtOnce) {
  set_num_threads(1);
  XlstmLarge model({.embedding_dim = 32, .num_heads = 2, .num_blocks = 1, .vocab_size = kVocab});
  model.parameters().materialise(kCpu, DType::kF64);
  model.parameters().initialise(3);
  const Source alone;
  const EvalResult expected = evaluate(model, alone, 0, nullptr);
  EXPECT_EQ(alone.largest, kSequences);
  for (const int ranks : {2, 3, 8}) {
    const Source source;
    const auto results = testing::in_threads(ranks, [&](comm::Communicator& c) -> std::string {
      set_num_threads(1);
      const EvalResult got = evaluate(model, source, 0, nullptr, &c);
      EXPECT_NEAR(got.loss, expected.loss, 1e-12);
      EXPECT_EQ(got.targets_by_position, expected.targets_by_position);
      EXPECT_EQ(got.correct_by_position, expected.correct_by_position);
      return "done";
    });
    EXPECT_EQ(results, std::vector<std::string>(static_cast<std::size_t>(ranks), "done"));
    EXPECT_EQ(source.largest, (kSequences + ranks - 1) / ranks);
  }
}

TEST(ByPosition, WeighsPositionsByTheirTargetsInStretchesThatDouble) {
  const EvalResult result{.targets_by_position = {1, 0, 1, 3, 0, 2},
                          .loss_by_position = {4.0, 0.0, 1.0, 5.0, 0.0, 0.25},
                          .correct_by_position = {0, 0, 1, 2, 0, 1}};
  EXPECT_EQ(by_position(result),
            "  tokens      1 to      1  loss 4.0000  accuracy   0.0 %\n"
            "  tokens      3 to      4  loss 4.0000  accuracy  75.0 %\n"
            "  tokens      5 to      6  loss 0.2500  accuracy  50.0 %\n");
}

TEST(ByPosition, SaysNothingOfPositionsWithoutTargets) {
  EXPECT_EQ(by_position({.targets_by_position = {0, 0},
                         .loss_by_position = {0.0, 0.0},
                         .correct_by_position = {0, 0}}),
            "");
}

}  // namespace
}  // namespace carousel
