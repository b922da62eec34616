#include "train/step.h"

#include <gtest/gtest.h>

#include <limits>

#include "core/kernels/cross_entropy.h"
#include "layers/xlstm_large.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

constexpr std::int64_t kVocab = 13;

XlstmLargeConfig tiny_config() {
  XlstmLargeConfig c;
  c.embedding_dim = 32;
  c.num_heads = 2;
  c.num_blocks = 1;
  c.vocab_size = kVocab;
  return c;
}

Batch random_batch(std::int64_t sequences, std::int64_t seq_len) {
  const auto count = static_cast<std::size_t>(sequences * seq_len);
  std::vector<std::int32_t> ids(2 * count);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<std::int32_t>(philox_word({1, 0, 0}, i) % kVocab);
  }
  Batch batch;
  batch.tokens = Tensor::from<std::int32_t>(std::span(ids).first(count), {sequences, seq_len});
  batch.targets = Tensor::from<std::int32_t>(std::span(ids).last(count), {sequences, seq_len});
  batch.target_count = sequences * seq_len;
  return batch;
}

struct TinyRun {
  explicit TinyRun(const XlstmLargeConfig& config) : model(config) {
    model.parameters().materialise(kCpu, DType::kF32);
    model.parameters().initialise(3);
    optimizer.emplace(model.parameters(), AdamWConfig{});
  }
  XlstmLarge model;
  std::optional<AdamW> optimizer;
};

TEST(Step, MicroBatchesGiveTheGradientOfTheWholeBatch) {
  Batch batch = random_batch(5, 8);
  // Ignored targets fall unevenly into the micro-batches; the mean is still over all targets.
  auto targets = batch.targets.to_vector<std::int32_t>();
  for (std::size_t i = 0; i < 13; ++i) targets[i] = kIgnoreTarget;
  batch.targets = Tensor::from<std::int32_t>(targets, {5, 8});
  batch.target_count = 40 - 13;
  TinyRun whole(tiny_config());
  TinyRun parts(tiny_config());
  const auto a = run_step(whole.model, *whole.optimizer, batch, {.lr = 0.01});
  const auto b =
      run_step(parts.model, *parts.optimizer, batch, {.lr = 0.01, .micro_batch_size = 2});
  EXPECT_NEAR(a.loss, b.loss, 1e-6);
  EXPECT_LE(
      testing::relative_error(parts.model.parameters().grad(), whole.model.parameters().grad()),
      1e-5);
}

// Powers of two scale without rounding.
TEST(Step, KnownTargetsReplaceTheBatchsOwnCount) {
  const Batch batch = random_batch(4, 8);
  TinyRun counted(tiny_config());
  TinyRun known(tiny_config());
  const auto a = run_step(counted.model, *counted.optimizer, batch, {.lr = 0.01});
  const auto b = run_step(known.model, *known.optimizer, batch, {.lr = 0.01, .targets = 64.0});
  EXPECT_EQ(b.loss, a.loss / 2);
  EXPECT_EQ(b.gradient_norm, a.gradient_norm / 2);
}

TEST(Step, RepeatsBitForBit) {
  auto config = tiny_config();
  config.dropout = 0.3;
  const Batch batch = random_batch(4, 16);
  TinyRun a(config);
  TinyRun b(config);
  for (int s = 1; s <= 3; ++s) {
    const StepOptions options{.seed = 5, .step = s, .lr = 0.01, .micro_batch_size = 2};
    EXPECT_EQ(run_step(a.model, *a.optimizer, batch, options).loss,
              run_step(b.model, *b.optimizer, batch, options).loss);
  }
  EXPECT_EQ(a.model.parameters().master().to_vector<float>(),
            b.model.parameters().master().to_vector<float>());
}

TEST(Step, ANonFiniteLossNamesTheTensorAndKeepsTheWeights) {
  TinyRun run(tiny_config());
  const Batch batch = random_batch(2, 8);
  Tensor weight = run.model.parameters().at("backbone.blocks.0.ffn.proj_up.weight").master;
  weight.data<float>()[3] = std::numeric_limits<float>::infinity();
  const auto before = run.model.parameters().at("lm_head.weight").master.to_vector<float>();
  try {
    run_step(run.model, *run.optimizer, batch, {.step = 17, .lr = 0.1});
    FAIL();
  } catch (const NonFiniteError& e) {
    const std::string what = e.what();
    EXPECT_NE(what.find("step 17"), std::string::npos) << what;
    EXPECT_NE(what.find("the weight 'backbone.blocks.0.ffn.proj_up.weight'"), std::string::npos)
        << what;
  }
  EXPECT_EQ(run.model.parameters().at("lm_head.weight").master.to_vector<float>(), before);
}

TEST(Step, AnOverflowInsideTheNetworkNamesTheOp) {
  TinyRun run(tiny_config());
  Tensor weight = run.model.parameters().at("backbone.blocks.0.ffn.proj_up.weight").master;
  for (std::int64_t i = 0; i < weight.numel(); ++i) weight.data<float>()[i] = 3e38f;
  try {
    run_step(run.model, *run.optimizer, random_batch(2, 8), {.lr = 0.1});
    FAIL();
  } catch (const NonFiniteError& e) {
    EXPECT_NE(std::string(e.what()).find("[linear]"), std::string::npos) << e.what();
  }
}

TEST(Step, ABatchWithoutTargetsIsRefused) {
  TinyRun run(tiny_config());
  Batch batch = random_batch(2, 8);
  batch.target_count = 0;
  EXPECT_THROW(run_step(run.model, *run.optimizer, batch, {.lr = 0.1}), DataError);
}

TEST(Step, RepeatedStepsAllocateNothingNew) {
  TinyRun run(tiny_config());
  const Batch batch = random_batch(4, 16);
  for (int s = 1; s <= 3; ++s) run_step(run.model, *run.optimizer, batch, {.step = s, .lr = 0.01});
  const auto before = memory_stats(kCpu);
  for (int s = 4; s <= 8; ++s) run_step(run.model, *run.optimizer, batch, {.step = s, .lr = 0.01});
  EXPECT_EQ(memory_stats(kCpu).device_allocations, before.device_allocations);
  EXPECT_EQ(memory_stats(kCpu).total_used, before.total_used);
}

}  // namespace
}  // namespace carousel
