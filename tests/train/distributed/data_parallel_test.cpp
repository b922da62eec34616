// Steps in which every rank is a thread.
#include "train/distributed/data_parallel.h"

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

Batch batch_of(int step, std::int64_t begin, std::int64_t end) {
  const auto seed = static_cast<std::uint64_t>(2 * step);
  Batch batch;
  batch.tokens = testing::random_tokens({8, 12}, kVocab, seed).slice(begin, end);
  batch.targets = testing::random_tokens({8, 12}, kVocab, seed + 1).slice(begin, end);
  batch.target_count = batch.tokens.numel();
  return batch;
}

// The weights after a few steps, as bytes.
std::string train(comm::Communicator& communicator, const ParallelOptions& parallel_options,
                  bool recompute) {
  set_num_threads(1);
  XlstmLarge model({.embedding_dim = 32, .num_heads = 2, .num_blocks = 2, .vocab_size = kVocab});
  model.parameters().materialise(kCpu, DType::kF32, communicator.world_size());
  model.parameters().initialise(3);
  DataParallel parallel(model.parameters(), communicator, parallel_options);
  AdamW optimizer(model.parameters(), {}, parallel.owned());
  const std::int64_t share = 8 / communicator.world_size();
  for (int step = 1; step <= 4; ++step) {
    run_step(model, optimizer,
             batch_of(step, share * communicator.rank(), share * (communicator.rank() + 1)),
             {.step = step,
              .lr = 0.01,
              .micro_batch_size = 2,
              .recompute = recompute,
              .deterministic = parallel_options.deterministic,
              .parallel = &parallel});
  }
  const Tensor& master = model.parameters().master();
  return {static_cast<const char*>(master.raw()), master.bytes()};
}

std::vector<std::string> train_in(int world, const ParallelOptions& options,
                                  bool recompute = false) {
  return in_threads(world, [&](comm::Communicator& c) { return train(c, options, recompute); });
}

TEST(DistDataParallel, ShardedAndPlainAgreeBitForBit) {
  // Buckets that cut through parameters.
  for (const std::int64_t bucket_bytes : {std::int64_t{20000}, std::int64_t{1} << 20}) {
    const auto plain = train_in(2, {.deterministic = true, .bucket_bytes = bucket_bytes});
    const auto sharded =
        train_in(2, {.zero_stage = 1, .deterministic = true, .bucket_bytes = bucket_bytes});
    EXPECT_GT(plain[0].size(), 1000u) << plain[0];
    EXPECT_EQ(plain[0], plain[1]);
    EXPECT_EQ(sharded[0], plain[0]);
    EXPECT_EQ(sharded[1], plain[0]);
  }
}

TEST(DistDataParallel, ScatteredGradientsLeaveAllRanksWithTheSameWeights) {
  for (const bool recompute : {false, true}) {
    const auto weights = train_in(4, {.zero_stage = 1, .bucket_bytes = 20000}, recompute);
    EXPECT_GT(weights[0].size(), 1000u) << weights[0];
    for (const std::string& w : weights) EXPECT_EQ(w, weights[0]);
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
