#include "layers/xlstm_large.h"

#include <gtest/gtest.h>

#include "core/autograd/random.h"
#include "core/kernels/elementwise.h"
#include "core/ops/activation.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/elementwise.h"
#include "tests/support/golden.h"
#include "tests/support/golden_model.h"
#include "tests/support/models.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

using testing::golden_path;
using testing::losses;
using testing::random_tokens;
using testing::relative_error;

XlstmLargeConfig tiny_config() {
  XlstmLargeConfig c;
  c.embedding_dim = 24;
  c.num_heads = 2;
  c.num_blocks = 2;
  c.vocab_size = 11;
  c.ffn_round_up_to_multiple_of = 8;
  c.chunk_size = 4;
  return c;
}

// Larger gate weights than the initial zeros, so that gates and normaliser leave their resting
// points.
void randomise(XlstmLarge& model, DType dtype, std::uint64_t seed) {
  model.parameters().materialise(kCpu, dtype);
  model.parameters().initialise(seed);
  for (const Parameter& p : model.parameters().all()) {
    if (p.spec.name.find("gate_preact.") == std::string::npos) continue;
    testing::set_normal(p, seed + 1, 0.5);
  }
  model.parameters().refresh_compute();
}

TEST(XlstmLargeGolden, LogitsAndEveryGradientMatchTheOfficialModel) {
  const SafetensorsFile file(golden_path("xlstm_large_tiny.safetensors"));
  XlstmLarge model(
      testing::golden_xlstm_large_config(nlohmann::json::parse(file.metadata().at("config"))));
  testing::expect_golden(testing::golden_errors(model, file), 1e-5, 1e-5, 1e-4);
}

TEST(XlstmLarge, EveryGradientMatchesDifferences) {
  XlstmLarge model(tiny_config());
  randomise(model, DType::kF64, 3);
  const Tensor tokens = random_tokens({2, 7}, 11, 5);
  const Tensor targets = random_tokens({14}, 11, 6);
  testing::expect_gradients_match_differences(model, tokens, targets);
}

TEST(XlstmLarge, RecomputeGivesTheSameBits) {
  auto config = tiny_config();
  config.dropout = 0.2;
  const Tensor tokens = random_tokens({2, 9}, 11, 5);
  const Tensor targets = random_tokens({18}, 11, 6);
  const auto gradients = [&](bool recompute) {
    XlstmLarge model(config);
    randomise(model, DType::kF32, 3);
    const RandomScope random(7, 1);
    backward(sum(losses(model, tokens, targets, {.training = true, .recompute = recompute})));
    return model.parameters().grad().to_vector<float>();
  };
  EXPECT_EQ(gradients(true), gradients(false));
}

// The logits of 500 tokens, a prompt and then one by one, against those of all at once.
void expect_steps_equal_the_parallel_forward(XlstmLarge& model, double tolerance) {
  constexpr std::int64_t kSeq = 500;
  constexpr std::int64_t kPrompt = 13;
  const Tensor tokens = random_tokens({kSeq}, 11, 5);
  const NoGrad no_grad;
  const Variable hidden = model.hidden(tokens.reshape({1, kSeq}), {}, {});
  const Tensor all =
      soft_cap(model.logits(reshape(hidden, {kSeq, hidden.dim(-1)})), model.logit_cap()).value();
  ModelState state;
  Tensor last = next_token_logits(model, tokens.slice(0, kPrompt).reshape({1, kPrompt}), state);
  for (std::int64_t t = kPrompt; t < kSeq; ++t) {
    const auto got = testing::to_doubles(last);
    const auto want = testing::to_doubles(all.slice(t - 1, t));
    for (std::size_t v = 0; v < got.size(); ++v) ASSERT_NEAR(got[v], want[v], tolerance) << t;
    last = next_token_logits(model, tokens.slice(t, t + 1).reshape({1, 1}), state);
  }
}

TEST(XlstmLarge, StepByStepLogitsEqualTheParallelOnes) {
  XlstmLarge model(tiny_config());
  model.parameters().materialise(kCpu, DType::kF32);
  model.parameters().initialise(3);
  expect_steps_equal_the_parallel_forward(model, 1e-4);
}

// At random gates some tokens' heads nearly cancel, which costs float32 its digits.
TEST(XlstmLarge, StepByStepLogitsEqualTheParallelOnesAtRandomGates) {
  XlstmLarge model(tiny_config());
  randomise(model, DType::kF64, 3);
  expect_steps_equal_the_parallel_forward(model, 1e-5);
}

TEST(XlstmLarge, AResetMakesTheRestIndependentOfWhatCameBefore) {
  XlstmLarge model(tiny_config());
  randomise(model, DType::kF32, 3);
  const Tensor tokens = random_tokens({12}, 11, 5);
  std::vector<std::uint8_t> starts(12, 0);
  starts[5] = 1;
  const NoGrad no_grad;
  const Tensor whole =
      model.hidden(tokens.reshape({1, 12}), Tensor::from<std::uint8_t>(starts, {1, 12}), {})
          .value();
  const Tensor alone = model.hidden(tokens.slice(5, 12).reshape({1, 7}), {}, {}).value();
  EXPECT_LE(relative_error(whole.reshape({12, 24}).slice(5, 12), alone.reshape({7, 24})), 1e-5);
}

TEST(XlstmLarge, Bf16StaysWithinItsRounding) {
  const Tensor tokens = random_tokens({4, 33}, 11, 5);
  const auto run = [&](DType dtype, bool round_weights) {
    XlstmLarge model(tiny_config());
    randomise(model, dtype, 3);
    if (round_weights) {
      Tensor narrow = Tensor::empty(model.parameters().master().shape(), DType::kBF16);
      cast(kCpu, {model.parameters().master(), narrow});
      cast(kCpu, {narrow, model.parameters().master()});
    }
    const NoGrad no_grad;
    const Variable h = model.hidden(tokens, {}, {});
    return to_dtype(model.logits(reshape(h, {tokens.numel(), h.dim(-1)})), DType::kF32).value();
  };
  // The weights' rounding alone gives the scale; activations are rounded some ten times a block.
  const Tensor exact = run(DType::kF32, false);
  const double weights_alone = relative_error(run(DType::kF32, true), exact);
  EXPECT_LE(relative_error(run(DType::kBF16, false), exact), 4.0 * weights_alone);
  EXPECT_LE(weights_alone, 0.05);
}

TEST(XlstmLarge, Has7BsParameterCount) {
  XlstmLargeConfig config;
  config.ffn_proj_factor = 2.667;
  const XlstmLarge model(config);
  EXPECT_EQ(model.parameters().count(), 6'865'424'896);
  EXPECT_EQ(ffn_dim(config), 10944);
}

TEST(XlstmLarge, FfnWidthFollowsTheRoundingOfThePyTorchCode) {
  XlstmLargeConfig config;
  config.embedding_dim = 768;
  config.ffn_proj_factor = 2.667;
  EXPECT_EQ(ffn_dim(config), 2048);
}

TEST(XlstmLarge, CapsOfZeroAndMissingPartsAreFine) {
  auto config = tiny_config();
  config.gate_soft_cap = 0;
  config.output_logit_soft_cap = 0;
  config.add_out_norm = false;
  config.use_bias = true;
  XlstmLarge model(config);
  randomise(model, DType::kF32, 3);
  const Tensor tokens = random_tokens({2, 7}, 11, 5);
  const Variable loss = sum(losses(model, tokens, random_tokens({14}, 11, 6), {}));
  EXPECT_TRUE(std::isfinite(loss.value().item()));
  backward(loss);
  for (const Parameter& p : model.parameters().all()) {
    EXPECT_GT(testing::relative_error(p.variable.grad(), zeros_like(p.variable.grad())), 0.0)
        << p.spec.name;
  }
}

TEST(XlstmLarge, RefusesHeadsThatDoNotDivide) {
  auto config = tiny_config();
  config.num_heads = 5;
  EXPECT_THROW(XlstmLarge{config}, UsageError);
}

}  // namespace
}  // namespace carousel
