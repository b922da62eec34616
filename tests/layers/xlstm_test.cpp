#include "layers/xlstm.h"

#include <gtest/gtest.h>

#include "core/autograd/random.h"
#include "core/kernels/elementwise.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/elementwise.h"
#include "tests/support/errors.h"
#include "tests/support/golden.h"
#include "tests/support/golden_model.h"
#include "tests/support/models.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

using testing::expect_error;
using testing::losses;
using testing::random_tokens;
using testing::relative_error;

constexpr std::int64_t kVocab = 11;

XlstmConfig tiny_config() {
  XlstmConfig c;
  c.num_blocks = 3;
  c.embedding_dim = 24;
  c.vocab_size = kVocab;
  c.slstm_at = {1};
  c.mlstm.num_heads = 2;
  c.slstm.num_heads = 3;
  return c;
}

// What starts at zero gets values, so that every path carries a gradient.
void randomise(Xlstm& model, DType dtype, std::uint64_t seed) {
  model.parameters().materialise(kCpu, dtype);
  model.parameters().initialise(seed);
  for (const Parameter& p : model.parameters().all()) {
    const auto named = [&](const char* part) {
      return p.spec.name.find(part) != std::string::npos;
    };
    if (named("mlstm_cell.igate.weight") || named("mlstm_cell.fgate.weight")) {
      testing::set_normal(p, seed + 1, 0.2);
    } else if (named("mlstm_cell.igate.bias")) {
      testing::set_normal(p, seed + 4, 0.5, -3.0);
    } else if (named("_recurrent_kernel_")) {
      testing::set_normal(p, seed + 2, 0.3);
    } else if (named("norm.weight")) {
      testing::set_normal(p, seed + 3, 0.2);
    } else if (named("_proj.bias") || named("proj_up.bias") || named("proj_down.bias")) {
      testing::set_normal(p, seed + 5, 0.3);
    }
  }
  model.parameters().refresh_compute();
}

TEST(XlstmGolden, LogitsAndEveryGradientMatchTheOfficialModel) {
  const SafetensorsFile file(testing::golden_path("xlstm_neurips_tiny.safetensors"));
  Xlstm model(testing::golden_xlstm_config(nlohmann::json::parse(file.metadata().at("config"))));
  std::size_t parameters_in_file = 0;
  for (const std::string& name : file.names()) parameters_in_file += name.starts_with("param.");
  EXPECT_EQ(model.parameters().all().size(), parameters_in_file);
  testing::expect_golden(testing::golden_errors(model, file), 1e-5, 1e-5, 1e-4);
}

// The mLSTM's eps of 1e-6 is added to a normaliser of about e^−m, and the backward holds m
// constant: differences see more than the tape by some 1e-6·e^m. Small input gates keep that small.
TEST(Xlstm, EveryGradientMatchesDifferences) {
  constexpr double kTolerance = 2e-6;
  for (const bool tied : {false, true}) {
    auto config = tiny_config();
    config.tie_weights = tied;
    config.add_post_blocks_norm = !tied;
    config.bias = tied;
    config.slstm_at = tied ? std::vector<std::int64_t>{0, 2} : std::vector<std::int64_t>{1};
    Xlstm model(config);
    randomise(model, DType::kF64, 3);
    std::vector<std::uint8_t> starts(14, 0);
    starts[4] = starts[7] = starts[8] = 1;
    testing::expect_gradients_match_differences(
        model, random_tokens({2, 7}, kVocab, 5), random_tokens({14}, kVocab, 6),
        Tensor::from<std::uint8_t>(starts, {2, 7}), kTolerance);
  }
}

TEST(Xlstm, BiasesStartAtZeroAndEachMatters) {
  auto config = tiny_config();
  config.slstm_at = {};
  config.num_blocks = 1;
  const Xlstm plain(config);
  config.bias = true;
  const Tensor tokens = random_tokens({1, 9}, kVocab, 5);
  const Tensor targets = random_tokens({9}, kVocab, 6);
  const auto loss_with = [&](const std::string& changed) {
    Xlstm model(config);
    randomise(model, DType::kF64, 3);
    for (const Parameter& p : model.parameters().all()) {
      if (p.spec.name.find("proj") != std::string::npos && p.spec.name.ends_with(".bias")) {
        testing::set_normal(p, 9, p.spec.name == changed ? 0.5 : 0.0);
      }
    }
    return sum(losses(model, tokens, targets, {})).value().item();
  };
  const std::string layer = "xlstm_block_stack.blocks.0.xlstm.";
  const std::vector<std::pair<std::string, std::int64_t>> biases{
      {"proj_up", 128}, {"proj_down", 24}, {"q_proj", 64}, {"k_proj", 64}, {"v_proj", 64}};
  EXPECT_EQ(Xlstm(config).parameters().all().size(), plain.parameters().all().size() + 5);
  const double unmoved = loss_with("");
  Xlstm model(config);
  model.parameters().materialise(kCpu, DType::kF32);
  model.parameters().initialise(1);
  for (const auto& [projection, width] : biases) {
    const std::string name = layer + projection + ".bias";
    const Parameter& bias = model.parameters().at(name);
    EXPECT_EQ(bias.master.to_vector<float>(),
              std::vector<float>(static_cast<std::size_t>(width), 0.0f));
    EXPECT_FALSE(bias.spec.decay);
    EXPECT_GT(std::abs(loss_with(name) - unmoved), 1e-4) << name;
  }
}

TEST(Xlstm, RecomputeGivesTheSameBits) {
  auto config = tiny_config();
  config.dropout = 0.2;
  const Tensor tokens = random_tokens({2, 9}, kVocab, 5);
  const Tensor targets = random_tokens({18}, kVocab, 6);
  const auto gradients = [&](bool recompute) {
    Xlstm model(config);
    randomise(model, DType::kF32, 3);
    const RandomScope random(7, 1);
    backward(sum(losses(model, tokens, targets, {.training = true, .recompute = recompute})));
    return model.parameters().grad().to_vector<float>();
  };
  EXPECT_EQ(gradients(true), gradients(false));
}

TEST(Xlstm, StepByStepLogitsEqualTheParallelOnes) {
  Xlstm model(tiny_config());
  randomise(model, DType::kF32, 3);
  constexpr std::int64_t kSeq = 500;
  const Tensor tokens = random_tokens({kSeq}, kVocab, 5);
  const NoGrad no_grad;
  const Variable hidden = model.hidden(tokens.reshape({1, kSeq}), {}, {});
  const Tensor all = model.logits(reshape(hidden, {kSeq, hidden.dim(-1)})).value();
  // A prompt longer than the convolution's window, a shorter one, and pieces of three.
  for (const auto& [prompt, piece] : {std::pair{13, 1}, std::pair{1, 1}, std::pair{2, 3}}) {
    ModelState state;
    Tensor last = next_token_logits(model, tokens.slice(0, prompt).reshape({1, prompt}), state);
    for (std::int64_t t = prompt; t + piece <= kSeq; t += piece) {
      ASSERT_LE(relative_error(last, all.slice(t - 1, t)), 1e-4) << prompt << ": " << t;
      last = next_token_logits(model, tokens.slice(t, t + piece).reshape({1, piece}), state);
    }
  }
}

TEST(Xlstm, AResetMakesTheRestIndependentOfWhatCameBefore) {
  Xlstm model(tiny_config());
  randomise(model, DType::kF32, 3);
  const Tensor tokens = random_tokens({12}, kVocab, 5);
  std::vector<std::uint8_t> starts(12, 0);
  starts[5] = 1;
  const NoGrad no_grad;
  const Tensor whole =
      model.hidden(tokens.reshape({1, 12}), Tensor::from<std::uint8_t>(starts, {1, 12}), {})
          .value();
  const Tensor alone = model.hidden(tokens.slice(5, 12).reshape({1, 7}), {}, {}).value();
  EXPECT_LE(relative_error(whole.reshape({12, 24}).slice(5, 12), alone.reshape({7, 24})), 1e-5);
}

TEST(Xlstm, Bf16StaysWithinItsRounding) {
  const Tensor tokens = random_tokens({4, 33}, kVocab, 5);
  const auto run = [&](DType dtype, bool round_weights) {
    Xlstm model(tiny_config());
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

TEST(Xlstm, InitialisesAsThePublishedModels) {
  auto config = tiny_config();
  config.slstm_at = {2};
  Xlstm model(config);
  model.parameters().materialise(kCpu, DType::kF32);
  model.parameters().initialise(1);
  const auto values = [&](const std::string& name) {
    return testing::to_doubles(model.parameters().at("xlstm_block_stack.blocks." + name).master);
  };
  const auto deviation = [](const std::vector<double>& v) {
    double sum2 = 0.0;
    for (const double x : v) sum2 += x * x;
    return std::sqrt(sum2 / static_cast<double>(v.size()));
  };
  EXPECT_NEAR(deviation(values("0.xlstm.proj_up.weight")), std::sqrt(2.0 / (5.0 * 24.0)), 0.01);
  EXPECT_NEAR(deviation(values("0.xlstm.proj_down.weight")), 2.0 / (3.0 * std::sqrt(24.0)), 0.01);
  EXPECT_EQ(values("0.xlstm.mlstm_cell.fgate.bias"), (std::vector<double>{3, 6}));
  for (const double w : values("0.xlstm.conv1d.conv.weight")) EXPECT_LE(std::abs(w), 0.5);
  // The last block: 5 − 12·x^1.6 over the 8 elements of each of 3 heads, in the second of 4 gates.
  const auto bias = values("2.xlstm.slstm_cell._bias_");
  ASSERT_EQ(bias.size(), 96u);
  for (std::size_t e = 0; e < bias.size(); ++e) {
    const double x = static_cast<double>(e % 8) / 7.0;
    EXPECT_NEAR(bias[e], e / 24 == 1 ? 5.0 - 12.0 * std::pow(x, 1.6) : 0.0, 1e-5) << e;
  }
}

TEST(Xlstm, DecaysMatricesButNotVectorsAndTheEmbeddingOnRequest) {
  for (const bool on_embedding : {false, true}) {
    auto config = tiny_config();
    config.weight_decay_on_embedding = on_embedding;
    const Xlstm model(config);
    for (const Parameter& p : model.parameters().all()) {
      const bool matrix = p.spec.shape.rank() > 1;
      EXPECT_EQ(p.spec.decay, p.spec.name == "token_embedding.weight" ? on_embedding : matrix)
          << p.spec.name;
    }
  }
}

TEST(Xlstm, CountsFlopsOfLinearsAndCells) {
  // D 24: the mLSTM's inner width is 64, the feed-forward's too.
  const Xlstm model(tiny_config());
  const double mlstm = 2.0 * (128 * 24 + 64 * 24 + 3 * 64 * 4 + 2 * 2 * 192) +
                       2 * (4.0 * 32 * 32 + 4.0 * 16 * 32 + 2.0 * 32 * 32 / 16);
  const double slstm = 2.0 * (4 * 3 * 8 * 8 + 4 * 3 * 8 * 8 + 128 * 24 + 64 * 24);
  EXPECT_EQ(model.forward_flops_per_token(16), 2 * mlstm + slstm + 2.0 * kVocab * 24);
}

TEST(Xlstm, RefusesContradictionsNamingTheKey) {
  const auto with = [](const std::function<void(XlstmConfig&)>& change) {
    return [change] {
      auto config = tiny_config();
      change(config);
      Xlstm{config};
    };
  };
  expect_error<UsageError>(with([](XlstmConfig& c) { c.mlstm.num_heads = 5; }),
                           {"mlstm.num_heads = 5", "64"});
  expect_error<UsageError>(with([](XlstmConfig& c) { c.mlstm.qkv_proj_blocksize = 7; }),
                           {"mlstm.qkv_proj_blocksize = 7"});
  expect_error<UsageError>(with([](XlstmConfig& c) { c.slstm.num_heads = 5; }),
                           {"slstm.num_heads = 5", "24"});
  expect_error<UsageError>(with([](XlstmConfig& c) { c.slstm_at = {3}; }), {"slstm_at", "block 3"});
  expect_error<UsageError>(with([](XlstmConfig& c) { c.slstm_at = {1, 1}; }), {"slstm_at"});
  expect_error<UsageError>(with([](XlstmConfig& c) { c.feedforward.act_fn = "relu"; }), {"relu"});
  expect_error<UsageError>(with([](XlstmConfig& c) { c.vocab_size = 0; }), {"vocab_size"});
}

}  // namespace
}  // namespace carousel
