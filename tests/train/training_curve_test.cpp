// 80 AdamW steps against the official implementation: forward, backward, clipping, schedule and
// update at once.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "layers/xlstm_large.h"
#include "optim/adamw.h"
#include "optim/schedule.h"
#include "tests/support/golden.h"
#include "tests/support/golden_model.h"
#include "tests/support/random.h"
#include "train/step.h"

namespace carousel {
namespace {

using testing::golden_path;
using testing::relative_error;
using testing::to_doubles;

TEST(TrainingCurveGolden, EveryLossAndTheFinalWeightsMatchTheOfficialRun) {
  const SafetensorsFile file(golden_path("training_curve.safetensors"));
  const auto json = nlohmann::json::parse(file.metadata().at("config"));
  const auto& recipe = json.at("optim");
  XlstmLarge model(testing::golden_xlstm_large_config(json));
  model.parameters().materialise(kCpu, DType::kF32);
  testing::load_golden_parameters(model, file, "init.");
  AdamWConfig config;
  config.lr = recipe.at("lr");
  config.beta1 = recipe.at("betas").at(0);
  config.beta2 = recipe.at("betas").at(1);
  config.eps = recipe.at("eps");
  config.weight_decay = recipe.at("weight_decay");
  config.clip = recipe.at("clip_norm");
  AdamW optimizer(model.parameters(), config);
  ScheduleConfig schedule;
  schedule.warmup = recipe.at("warmup_steps");
  const std::int64_t steps = recipe.at("total_steps");

  const Tensor ids = file.load("ids");  // (steps, B, S+1)
  ASSERT_EQ(ids.dim(0), steps);
  const auto loss = to_doubles(file.load("loss"));
  const auto norm = to_doubles(file.load("grad_norm"));
  const auto lr = to_doubles(file.load("lr"));
  for (std::int64_t s = 0; s < steps; ++s) {
    const auto at = static_cast<std::size_t>(s);
    const auto [tokens, targets] =
        testing::split_tokens(ids.slice(s, s + 1).reshape({ids.dim(1), ids.dim(2)}));
    const Batch batch{.tokens = tokens, .targets = targets, .target_count = targets.numel()};
    const double rate = learning_rate(config.lr, schedule, s, steps);
    ASSERT_NEAR(rate, lr[at], 1e-6 * lr[at]) << s;
    const StepResult result =
        run_step(model, optimizer, batch, {.step = s + 1, .lr = rate, .micro_batch_size = 3});
    ASSERT_NEAR(result.loss, loss[at], 1e-4) << s;
    ASSERT_NEAR(result.gradient_norm, norm[at], 1e-3 * norm[at]) << s;
  }
  for (const Parameter& p : model.parameters().all()) {
    EXPECT_LE(relative_error(p.master, file.load("final." + testing::nxai_name(p.spec.name))), 1e-3)
        << p.spec.name;
  }
}

}  // namespace
}  // namespace carousel
