// Steps in which every rank is a thread.
#include "train/distributed/data_parallel.h"

#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "core/base/parallel.h"
#include "layers/xlstm_large.h"
#include "tests/support/models.h"
#include "tests/support/ranks.h"
#include "train/step.h"

namespace carousel {
namespace {

using testing::in_threads;

constexpr std::int64_t kVocab = 13;
const XlstmLargeConfig kModel{
    .embedding_dim = 32, .num_heads = 2, .num_blocks = 2, .vocab_size = kVocab};

Batch batch_of(int step, std::int64_t begin, std::int64_t end) {
  const auto seed = static_cast<std::uint64_t>(2 * step);
  Batch batch;
  batch.tokens = testing::random_tokens({8, 12}, kVocab, seed).slice(begin, end);
  batch.targets = testing::random_tokens({8, 12}, kVocab, seed + 1).slice(begin, end);
  batch.target_count = batch.tokens.numel();
  return batch;
}

struct Mode {
  DType precision = DType::kF32;
  bool recompute = false;
};

std::string bytes_of(const Tensor& t) { return {static_cast<const char*>(t.raw()), t.bytes()}; }

// The weights in use after a few steps, as bytes.
std::string train(comm::Communicator& communicator, const ParallelOptions& parallel_options,
                  const Mode& mode) {
  set_num_threads(1);
  XlstmLarge model(kModel);
  DataParallel parallel(model.parameters(), communicator, parallel_options, mode.precision);
  model.parameters().initialise(3);
  AdamW optimizer(model.parameters(), {}, parallel.owned());
  const std::int64_t share = 8 / communicator.world_size();
  for (int step = 1; step <= 4; ++step) {
    run_step(model, optimizer,
             batch_of(step, share * communicator.rank(), share * (communicator.rank() + 1)),
             {.step = step,
              .lr = 0.01,
              .micro_batch_size = 2,
              .recompute = mode.recompute,
              .deterministic = parallel_options.deterministic,
              .parallel = &parallel});
  }
  std::string weights;
  for (const Parameter& p : model.parameters().all()) weights += bytes_of(p.variable.value());
  return weights;
}

std::vector<std::string> train_in(int world, const ParallelOptions& options,
                                  const Mode& mode = {}) {
  return in_threads(world, [&](comm::Communicator& c) { return train(c, options, mode); });
}

TEST(DistDataParallel, ShardedAndPlainAgreeBitForBit) {
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    // Buckets that cut through parameters.
    for (const std::int64_t bucket_bytes : {std::int64_t{20000}, std::int64_t{1} << 20}) {
      const ParallelOptions options{
          .deterministic = true, .overlap = true, .bucket_bytes = bucket_bytes};
      ParallelOptions zero = options;
      zero.zero_stage = 1;
      zero.overlap = false;
      const auto plain = train_in(2, options, {precision});
      const auto sharded = train_in(2, zero, {precision});
      EXPECT_GT(plain[0].size(), 1000u) << plain[0];
      EXPECT_EQ(plain[0], plain[1]);
      EXPECT_EQ(sharded[0], plain[0]);
      EXPECT_EQ(sharded[1], plain[0]);
    }
  }
}

TEST(DistDataParallel, StepsBringWhatEachRankTells) {
  const auto results = in_threads(2, [](comm::Communicator& c) {
    set_num_threads(1);
    std::string text;
    std::vector<std::string> weights;
    for (const bool known : {false, true}) {
      XlstmLarge model(kModel);
      DataParallel parallel(model.parameters(), c, {}, DType::kF32);
      model.parameters().initialise(3);
      AdamW optimizer(model.parameters(), {}, parallel.owned());
      // More than a float32 can count.
      const double mine = 16777217.0 + c.rank();
      const StepResult result =
          run_step(model, optimizer, batch_of(1, 4 * c.rank(), 4 * c.rank() + 4),
                   {.targets = known ? std::optional(8.0 * 12.0) : std::nullopt,
                    .meanwhile =
                        [&] {
                          return std::vector<double>{mine, -1.0};
                        },
                    .parallel = &parallel});
      for (const auto& of_rank : result.told) text += fmt::format("{} ", fmt::join(of_rank, " "));
      weights.push_back(bytes_of(model.parameters().master()));
    }
    return text + (weights[0] == weights[1] ? "same" : "different");
  });
  const std::string once = "16777217 -1 16777218 -1 ";
  EXPECT_EQ(results, std::vector<std::string>(2, once + once + "same"));
}

TEST(DistDataParallel, AShardedRankHoldsItsMastersAlone) {
  const auto sizes = in_threads(4, [&](comm::Communicator& c) {
    std::string text;
    for (const int zero_stage : {0, 1}) {
      for (const DType precision : {DType::kF32, DType::kBF16}) {
        XlstmLarge model(kModel);
        const DataParallel parallel(model.parameters(), c,
                                    {.zero_stage = zero_stage, .bucket_bytes = 20000}, precision);
        const AdamW optimizer(model.parameters(), {}, parallel.owned());
        const std::int64_t sharded = model.parameters().replicated_begin();
        const std::int64_t replicated = model.parameters().arena_size() - sharded;
        const std::int64_t part = sharded / 4 + replicated;
        const auto what = [&](const Tensor& t) {
          return t.numel() == part ? "part " : t.numel() == sharded + replicated ? "whole " : "? ";
        };
        text += what(model.parameters().master());
        text += what(optimizer.m());
      }
    }
    return text;
  });
  EXPECT_EQ(sizes, std::vector<std::string>(4, "whole whole whole whole whole part part part "));
}

TEST(DistDataParallel, AShardStartsFromTheSameWeights) {
  // Plain, then sharded: masters where the rank holds them, compute copies everywhere.
  const auto results = in_threads(2, [&](comm::Communicator& c) -> std::string {
    XlstmLarge whole(kModel);
    XlstmLarge part(kModel);
    const DataParallel plain(whole.parameters(), c, {}, DType::kBF16);
    const DataParallel sharded(part.parameters(), c, {.zero_stage = 1, .bucket_bytes = 20000},
                               DType::kBF16);
    whole.parameters().initialise(5);
    part.parameters().initialise(5);
    if (bytes_of(whole.parameters().compute()) != bytes_of(part.parameters().compute())) {
      return "other weights";
    }
    for (const ArenaRange& owned : sharded.owned()) {
      if (bytes_of(owned.of(whole.parameters().master())) !=
          bytes_of(part.parameters().master_of(owned))) {
        return "other masters";
      }
    }
    return part.parameters().master_of({0, part.parameters().arena_size()}).defined() ? "whole"
                                                                                      : "same";
  });
  EXPECT_EQ(results, std::vector<std::string>(2, "same"));
}

TEST(DistDataParallel, ScatteredGradientsLeaveAllRanksWithTheSameWeights) {
  for (const bool recompute : {false, true}) {
    const auto weights = train_in(4, {.zero_stage = 1, .overlap = true, .bucket_bytes = 20000},
                                  {.recompute = recompute});
    EXPECT_GT(weights[0].size(), 1000u) << weights[0];
    for (const std::string& w : weights) EXPECT_EQ(w, weights[0]);
  }
}

TEST(DistDataParallel, OverlapChangesNoBit) {
  for (const int zero_stage : {0, 1}) {
    const auto train_with = [&](bool overlap) {
      return train_in(2, {.zero_stage = zero_stage, .overlap = overlap, .bucket_bytes = 20000});
    };
    const auto weights = train_with(true);
    EXPECT_GT(weights[0].size(), 1000u) << weights[0];
    EXPECT_EQ(weights, train_with(false));
  }
}

TEST(DistDataParallel, ATreeGivesOneToFourRanksTheSameBits) {
  const ParallelOptions options{.deterministic = true, .bucket_bytes = 20000};
  const std::string one = train_in(1, options)[0];
  EXPECT_GT(one.size(), 1000u) << one;
  EXPECT_EQ(train_in(2, options)[1], one);
  EXPECT_EQ(train_in(4, options)[3], one);
}

}  // namespace
}  // namespace carousel
