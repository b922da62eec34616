#include "data/loader.h"

#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "core/base/error.h"
#include "core/kernels/cross_entropy.h"
#include "tests/support/errors.h"

namespace carousel {
namespace {

using testing::expect_error;
using Tokens = std::vector<std::int32_t>;

/// A corpus in memory.
class FakeCorpus final : public Corpus {
 public:
  explicit FakeCorpus(Tokens tokens, std::vector<std::int64_t> starts = {})
      : tokens_(std::move(tokens)) {
    size_ = std::ssize(tokens_);
    vocab_size_ = 1 << 20;
    document_starts_ = std::move(starts);
  }
  void read(std::int64_t begin, std::span<std::int32_t> tokens) const override {
    std::copy_n(tokens_.begin() + begin, tokens.size(), tokens.begin());
  }
  std::string describe() const override { return describe_files("fake", "fake", 1); }

 private:
  Tokens tokens_;
};

/// Token i is i, so that a batch tells where it was read.
std::shared_ptr<const Corpus> counting(std::int64_t n) {
  Tokens tokens(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i);
  return std::make_shared<FakeCorpus>(tokens);
}

LoaderOptions options(std::int64_t seq_len, std::int64_t batch_size) {
  return {seq_len, batch_size, false, std::nullopt};
}

/// The whole corpus as one evaluation window.
Batch one_window(const Tokens& tokens, std::vector<std::int64_t> starts,
                 std::optional<std::int32_t> document_token) {
  const auto n = std::ssize(tokens) - 1;
  return EvalLoader(std::make_shared<FakeCorpus>(tokens, std::move(starts)),
                    {n, 1, true, document_token}, 0)
      .batch(0, 0, 1);
}

TEST(BatchLoader, TargetsAreTheNextTokens) {
  const BatchLoader loader(counting(1000), options(7, 5), 3);
  const Batch batch = loader.batch(11, 0, 5);
  EXPECT_EQ(batch.tokens.shape(), (Shape{5, 7}));
  EXPECT_EQ(batch.targets.shape(), (Shape{5, 7}));
  EXPECT_FALSE(batch.reset.defined());
  EXPECT_EQ(batch.target_count, 35);
  const WindowOrder order(1000, 7, 3);
  const auto tokens = batch.tokens.to_vector<std::int32_t>();
  const auto targets = batch.targets.to_vector<std::int32_t>();
  for (int b = 0; b < 5; ++b) {
    for (int t = 0; t < 7; ++t) {
      const auto i = static_cast<std::size_t>(7 * b + t);
      EXPECT_EQ(tokens[i], order.start(11 * 5 + b) + t);
      EXPECT_EQ(targets[i], tokens[i] + 1);
    }
  }
}

TEST(BatchLoader, RanksTogetherSeeTheGlobalBatch) {
  const BatchLoader loader(counting(5000), options(9, 7), 3);
  const auto whole = loader.batch(123, 0, 7).tokens.to_vector<std::int32_t>();
  for (const int ranks : {1, 2, 3, 7}) {
    Tokens joined;
    for (int r = 0; r < ranks; ++r) {
      const auto part = loader.batch(123, 7 * r / ranks, 7 * (r + 1) / ranks).tokens;
      const auto tokens = part.to_vector<std::int32_t>();
      joined.insert(joined.end(), tokens.begin(), tokens.end());
    }
    EXPECT_EQ(joined, whole) << ranks;
  }
}

TEST(BatchLoader, AnEpochHoldsEachWindowOnce) {
  const BatchLoader loader(counting(9 * 21 + 5), options(9, 4), 8);
  const std::int64_t windows = WindowOrder(9 * 21 + 5, 9, 8).windows_per_epoch();
  ASSERT_EQ(windows % 4, 0);
  std::map<std::int32_t, int> first_tokens;
  for (std::int64_t step = 0; step < windows / 4; ++step) {
    const auto tokens = loader.batch(step, 0, 4).tokens.to_vector<std::int32_t>();
    for (std::size_t b = 0; b < 4; ++b) ++first_tokens[tokens[9 * b]];
  }
  EXPECT_EQ(std::ssize(first_tokens), windows);
}

TEST(BatchLoader, ServesSeveralThreads) {
  const BatchLoader loader(counting(2000), options(16, 8), 1);
  const auto want = loader.batch(5, 0, 8).tokens.to_vector<std::int32_t>();
  std::vector<Tokens> got(4);
  std::vector<std::thread> threads;
  for (Tokens& tokens : got) {
    threads.emplace_back([&] { tokens = loader.batch(5, 0, 8).tokens.to_vector<std::int32_t>(); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Tokens& tokens : got) EXPECT_EQ(tokens, want);
}

TEST(BatchLoader, RefusesACorpusShorterThanASequence) {
  expect_error<DataError>([] { BatchLoader(counting(8), options(8, 1), 1); },
                          {"8 tokens", "fake", "seq_len + 1 = 9"});
  expect_error<DataError>([] { EvalLoader(counting(8), options(8, 1), 0); }, {"8 tokens", "= 9"});
  BatchLoader(counting(9), options(8, 3), 1).batch(100, 0, 3);
}

TEST(BatchLoader, ChecksItsArguments) {
  const BatchLoader loader(counting(100), options(8, 3), 1);
  EXPECT_THROW(loader.batch(-1, 0, 3), InternalError);
  EXPECT_THROW(loader.batch(0, 2, 2), InternalError);
  EXPECT_THROW(loader.batch(0, 0, 4), InternalError);
  EXPECT_THROW(BatchLoader(counting(100), options(0, 3), 1), InternalError);
  EXPECT_THROW(BatchLoader(counting(100), options(8, 0), 1), InternalError);
}

TEST(BatchLoader, DescribesTheRun) {
  const BatchLoader loader(counting(81), options(8, 3), 1);
  EXPECT_EQ(loader.describe(6),
            "81 tokens of a vocabulary of 1048576 from fake; 9 windows of 8 tokens an epoch, 2.00 "
            "epochs in 6 steps of 3");
  const auto marked = std::make_shared<FakeCorpus>(Tokens(20), std::vector<std::int64_t>{0, 7});
  EXPECT_EQ(
      BatchLoader(marked, {4, 1, true, 5}, 1).describe(0),
      "20 tokens of a vocabulary of 1048576 from fake, documents begin at token 5, 2 documents "
      "are files; 4 windows of 4 tokens an epoch");
}

TEST(DocumentBoundaries, ResetAtDocumentTokens) {
  // Documents: "1 2", "3", "" and "4 5"; 9 is the document token.
  const Batch batch = one_window({1, 2, 9, 3, 9, 9, 4, 5}, {}, 9);
  EXPECT_EQ(batch.reset.to_vector<std::uint8_t>(),
            (std::vector<std::uint8_t>{0, 0, 1, 0, 1, 1, 0}));
  EXPECT_EQ(batch.targets.to_vector<std::int32_t>(), (Tokens{2, 9, 3, 9, 9, 4, 5}));
  EXPECT_EQ(batch.target_count, 7);
}

TEST(DocumentBoundaries, TargetsInTheNextFileAreIgnored) {
  // Files at 0, 3 and 4; the last one begins at the last target.
  const Batch batch = one_window({1, 2, 3, 4, 5, 6, 7}, {0, 3, 4, 6}, std::nullopt);
  EXPECT_EQ(batch.reset.to_vector<std::uint8_t>(), (std::vector<std::uint8_t>{1, 0, 0, 1, 1, 0}));
  EXPECT_EQ(batch.targets.to_vector<std::int32_t>(),
            (Tokens{2, 3, kIgnoreTarget, kIgnoreTarget, 6, kIgnoreTarget}));
  EXPECT_EQ(batch.target_count, 3);
}

TEST(DocumentBoundaries, AFilesDocumentTokenIsPredicted) {
  const Batch batch = one_window({9, 1, 2, 9, 3, 4}, {0, 3, 4}, 9);
  EXPECT_EQ(batch.reset.to_vector<std::uint8_t>(), (std::vector<std::uint8_t>{1, 0, 0, 1, 1}));
  // Position 4 is a start without a document token; position 3 has one.
  EXPECT_EQ(batch.targets.to_vector<std::int32_t>(), (Tokens{1, 2, 9, kIgnoreTarget, 4}));
  EXPECT_EQ(batch.target_count, 4);
}

TEST(DocumentBoundaries, AWindowsFirstTokenIsNoStartByItself) {
  const auto corpus =
      std::make_shared<FakeCorpus>(Tokens{1, 2, 3, 4, 5, 6, 7}, std::vector<std::int64_t>{0, 4});
  const Batch batch = EvalLoader(corpus, {3, 2, true, std::nullopt}, 0).batch(0, 0, 2);
  EXPECT_EQ(batch.reset.to_vector<std::uint8_t>(), (std::vector<std::uint8_t>{1, 0, 0, 0, 1, 0}));
  EXPECT_EQ(batch.targets.to_vector<std::int32_t>(), (Tokens{2, 3, 4, kIgnoreTarget, 6, 7}));
}

TEST(EvalLoader, CountsEveryWindowOnce) {
  for (const std::int64_t tokens : {9, 16, 17, 80, 81, 82, 113}) {
    for (const std::int64_t batch_size : {1, 3, 4, 20}) {
      const EvalLoader loader(counting(tokens), options(8, batch_size), 0);
      const std::int64_t windows = (tokens - 1) / 8;
      EXPECT_EQ(loader.num_batches(), (windows + batch_size - 1) / batch_size);
      Tokens seen;
      std::int64_t targets = 0;
      for (std::int64_t b = 0; b < loader.num_batches(); ++b) {
        const Batch batch = loader.batch(b, 0, batch_size);
        targets += batch.target_count;
        for (const std::int32_t t : batch.targets.to_vector<std::int32_t>()) {
          if (t != kIgnoreTarget) seen.push_back(t);
        }
      }
      EXPECT_EQ(targets, 8 * windows);
      ASSERT_EQ(std::ssize(seen), 8 * windows);
      for (std::size_t i = 0; i < seen.size(); ++i) {
        EXPECT_EQ(seen[i], static_cast<std::int32_t>(i) + 1);
      }
    }
  }
}

TEST(EvalLoader, RowsBeyondTheLastWindowAreEmpty) {
  const EvalLoader loader(std::make_shared<FakeCorpus>(Tokens(25, 3)), {8, 2, true, 3}, 0);
  const Batch batch = loader.batch(1, 1, 2);
  EXPECT_EQ(batch.target_count, 0);
  EXPECT_EQ(batch.tokens.to_vector<std::int32_t>(), Tokens(8, 0));
  EXPECT_EQ(batch.targets.to_vector<std::int32_t>(), Tokens(8, kIgnoreTarget));
  EXPECT_EQ(batch.reset.to_vector<std::uint8_t>(), std::vector<std::uint8_t>(8, 0));
}

TEST(EvalLoader, SpreadsFewBatchesEvenly) {
  // 23 windows, 12 batches of 2, of which 5: batches 0, 2, 4, 7, 9.
  const EvalLoader loader(counting(23 * 4 + 1), options(4, 2), 5);
  EXPECT_EQ(loader.num_batches(), 5);
  Tokens first;
  for (std::int64_t b = 0; b < 5; ++b) {
    first.push_back(loader.batch(b, 0, 1).tokens.to_vector<std::int32_t>()[0] / 8);
  }
  EXPECT_EQ(first, (Tokens{0, 2, 4, 7, 9}));
  EXPECT_THROW(loader.batch(5, 0, 1), InternalError);
  EXPECT_EQ(EvalLoader(counting(93), options(4, 2), 100).num_batches(), 12);
  EXPECT_EQ(
      loader.describe(0),
      "93 tokens of a vocabulary of 1048576 from fake; 5 of 12 batches of 2 windows of 4 tokens");
}

}  // namespace
}  // namespace carousel
