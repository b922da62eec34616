// 80 AdamW steps against the official implementation: forward, backward, clipping, schedule and
// update at once.
//
// The curve is sensitive: its steps near and past the first loss spikes magnify differences of one
// float32 rounding some thousandfold, and the official code, run again with another chunk length,
// leaves its own recorded curve by 1e-4 from about step 28 on, and by 1e-2 later. So the run is
// repeated with several summation orders; where these agree, the recorded losses must be met within
// 1e-4, and elsewhere within a small multiple of what rounding alone does to our own runs.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "layers/xlstm_large.h"
#include "optim/adamw.h"
#include "optim/schedule.h"
#include "tests/support/devices.h"
#include "tests/support/golden.h"
#include "tests/support/golden_model.h"
#include "tests/support/random.h"
#include "train/step.h"

namespace carousel {
namespace {

using testing::golden_path;
using testing::relative_error;
using testing::to_doubles;

struct Curve {
  std::vector<double> loss;
  std::vector<std::vector<double>> weights;  // final, in the order of the parameters
};

AdamWConfig adamw_of(const nlohmann::json& recipe) {
  AdamWConfig config;
  config.lr = recipe.at("lr");
  config.beta1 = recipe.at("betas").at(0);
  config.beta2 = recipe.at("betas").at(1);
  config.eps = recipe.at("eps");
  config.weight_decay = recipe.at("weight_decay");
  config.clip = recipe.at("clip_norm");
  return config;
}

// Runs the recipe; the micro-batch size changes the order of sums and nothing else.
Curve run_recipe(const SafetensorsFile& file, const nlohmann::json& json, std::int64_t micro_batch,
                 Device device) {
  const auto& recipe = json.at("optim");
  XlstmLarge model(testing::golden_xlstm_large_config(json));
  model.parameters().materialise(device, DType::kF32);
  testing::load_golden_parameters(model, file, "init.");
  const AdamWConfig config = adamw_of(recipe);
  AdamW optimizer(model.parameters(), config);
  ScheduleConfig schedule;
  schedule.warmup = recipe.at("warmup_steps");
  const std::int64_t steps = recipe.at("total_steps");
  const Tensor ids = file.load("ids");  // (steps, B, S+1)
  const auto lr = to_doubles(file.load("lr"));
  Curve curve;
  for (std::int64_t s = 0; s < steps; ++s) {
    const auto [tokens, targets] =
        testing::split_tokens(ids.slice(s, s + 1).reshape({ids.dim(1), ids.dim(2)}));
    const Batch batch{.tokens = tokens, .targets = targets, .target_count = targets.numel()};
    const double rate = learning_rate(config.lr, schedule, s, steps);
    const double want = lr[static_cast<std::size_t>(s)];
    EXPECT_NEAR(rate, want, 1e-6 * want) << s;
    const StepOptions options{.step = s + 1, .lr = rate, .micro_batch_size = micro_batch};
    curve.loss.push_back(run_step(model, optimizer, batch, options).loss);
  }
  for (const Parameter& p : model.parameters().all()) curve.weights.push_back(to_doubles(p.master));
  return curve;
}

void expect_official_curve(Device device, double loss_tolerance) {
  const SafetensorsFile file(golden_path("training_curve.safetensors"));
  const auto json = nlohmann::json::parse(file.metadata().at("config"));
  std::vector<Curve> curves;
  for (const std::int64_t micro_batch : {4, 3, 2, 1}) {
    curves.push_back(run_recipe(file, json, micro_batch, device));
  }
  const auto want = to_doubles(file.load("loss"));
  double spread = 0.0;
  for (std::size_t s = 0; s < want.size(); ++s) {
    std::vector<double> losses;
    for (const Curve& c : curves) losses.push_back(c.loss[s]);
    const auto [least, most] = std::ranges::minmax(losses);
    spread = std::max(spread, most - least);
    EXPECT_NEAR(curves[0].loss[s], want[s], loss_tolerance + 2.0 * spread) << "step " << s;
    if (s < 12) {
      EXPECT_LE(spread, 0.1 * loss_tolerance) << "step " << s;
    }
  }

  XlstmLarge names(testing::golden_xlstm_large_config(json));
  std::size_t k = 0;
  for (const Parameter& p : names.parameters().all()) {
    const auto golden = to_doubles(file.load("final." + testing::nxai_name(p.spec.name)));
    double between = 0.0;
    for (const Curve& c : curves) {
      between = std::max(between, relative_error(c.weights[k], curves[0].weights[k]));
    }
    EXPECT_LE(relative_error(curves[0].weights[k], golden), std::max(1e-3, 4.0 * between))
        << p.spec.name;
    ++k;
  }
}

TEST(TrainingCurveGolden, LossesAndFinalWeightsMatchTheOfficialRun) {
  expect_official_curve(kCpu, 1e-4);
}

TEST(CudaReference, LossesAndFinalWeightsMatchTheOfficialRun) {
  CAROUSEL_REQUIRE_CUDA();
  expect_official_curve(testing::kGpu, 1e-3);
}

}  // namespace
}  // namespace carousel
