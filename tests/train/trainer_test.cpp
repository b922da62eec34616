#include "train/trainer.h"

#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"
#include "train/run_directory.h"

namespace carousel {
namespace {

using testing::expect_error;
using testing::TempDir;

// A run of a few tiny steps on a text of its own.
class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() {
    std::string text;
    for (int i = 0; i < 200; ++i) text += fmt::format("line {} of a small text.\n", i * i);
    config_.name = "tiny";
    config_.seed = 3;
    config_.steps = 8;
    config_.output_dir = dir_ / "run";
    config_.device = DeviceChoice::kUseCpu;
    config_.model.xlstm_large.embedding_dim = 32;
    config_.model.xlstm_large.num_heads = 2;
    config_.model.xlstm_large.num_blocks = 1;
    config_.model.xlstm_large.dropout = 0.1;
    config_.data.train = {dir_.write("text.txt", text)};
    config_.data.val.fraction = 0.1;
    config_.data.tokenizer = "char";
    config_.data.seq_len = 16;
    config_.data.batch_size = 4;
    config_.checkpoint.every = 2;
    config_.checkpoint.keep = 3;
    config_.eval.batches = 2;
  }

  std::filesystem::path run_path() const { return config_.output_dir; }
  std::filesystem::path checkpoint(int step) const {
    return run_path() / "checkpoints" / fmt::format("step-{:08}", step);
  }
  std::vector<float> final_weights() {
    return load_trained_model(run_path(), DeviceChoice::kUseCpu)
        .model->parameters()
        .master()
        .to_vector<float>();
  }
  std::vector<nlohmann::json> metrics() const {
    std::ifstream in(run_path() / "metrics.jsonl");
    std::vector<nlohmann::json> rows;
    for (std::string line; std::getline(in, line);) rows.push_back(nlohmann::json::parse(line));
    return rows;
  }

  TempDir dir_;
  Config config_;
};

TEST_F(TrainerTest, WritesItsRunDirectory) {
  Trainer(config_).run();
  EXPECT_TRUE(std::filesystem::exists(run_path() / "config.yaml"));
  EXPECT_TRUE(std::filesystem::exists(run_path() / "train.log"));
  const auto rows = metrics();
  ASSERT_EQ(rows.size(), 9u);  // 8 steps and the last evaluation
  EXPECT_EQ(rows[0].at("step"), 1);
  EXPECT_LT(rows[7].at("loss").get<double>(), rows[0].at("loss").get<double>());
  EXPECT_TRUE(rows[8].contains("val_loss"));
  EXPECT_FALSE(std::filesystem::exists(checkpoint(2)));  // keep: 3
  EXPECT_TRUE(std::filesystem::exists(checkpoint(8)));
}

TEST_F(TrainerTest, AnInterruptedRunEndsWithTheSameBits) {
  Trainer(config_).run();
  const auto whole = final_weights();
  const auto whole_metrics = metrics();
  config_.output_dir = dir_ / "broken";
  {
    Trainer trainer(config_);
    std::raise(SIGTERM);  // noticed behind the first step
    expect_error<Preempted>([&] { trainer.run(); }, {"after step 1", "start again"});
  }
  EXPECT_TRUE(std::filesystem::exists(checkpoint(1)));
  Trainer(config_).run();
  EXPECT_EQ(final_weights(), whole);
  const auto resumed = metrics();
  ASSERT_EQ(resumed.size(), whole_metrics.size());
  for (std::size_t i = 0; i < resumed.size(); ++i) {
    EXPECT_EQ(resumed[i].value("loss", 0.0), whole_metrics[i].value("loss", 0.0)) << i;
  }
}

TEST_F(TrainerTest, ADamagedCheckpointIsPassedOver) {
  Trainer(config_).run();
  const auto whole = final_weights();
  {
    std::fstream file(checkpoint(8) / "model.safetensors", std::ios::in | std::ios::out);
    file.seekp(3000);
    file.put('\x5a');
  }
  Trainer(config_).run();  // from step 6
  EXPECT_EQ(final_weights(), whole);
}

TEST_F(TrainerTest, AFinishedRunCanBeContinuedFurther) {
  Trainer(config_).run();
  config_.steps = 10;
  Trainer(config_).run();
  EXPECT_TRUE(std::filesystem::exists(checkpoint(10)));
}

TEST_F(TrainerTest, AnotherModelOrDataIsRefused) {
  Trainer(config_).run();
  config_.optim.lr *= 2;
  expect_error<CheckpointError>([&] { Trainer trainer(config_); },
                                {"another model, data or optimizer configuration"});
}

TEST_F(TrainerTest, ResumeNeverProtectsAnOldRun) {
  Trainer(config_).run();
  config_.checkpoint.resume = "never";
  expect_error<UsageError>([&] { Trainer trainer(config_); }, {"already holds checkpoints"});
}

TEST_F(TrainerTest, TwoTrainersInOneDirectoryAreRefused) {
  const Trainer first(config_);
  expect_error<UsageError>([&] { Trainer second(config_); }, {"another process is training"});
}

TEST_F(TrainerTest, AVocabularyThatDoesNotFitIsNamed) {
  config_.model.vocab_size = 5;
  expect_error<UsageError>([&] { Trainer trainer(config_); }, {"model.vocab_size is 5"});
}

TEST_F(TrainerTest, ANonFiniteLossKeepsTheLastGoodCheckpoint) {
  config_.optim.lr = 1e30;
  config_.optim.clip = 0;
  config_.optim.weight_decay = 0;
  config_.checkpoint.every = 1;
  Trainer trainer(config_);
  expect_error<NonFiniteError>([&] { trainer.run(); }, {"first tensor that is not finite"});
  EXPECT_EQ(static_cast<int>(ExitCode::kNonFinite), 6);
  EXPECT_TRUE(newest_good_checkpoint(run_path() / "checkpoints").has_value());
}

TEST_F(TrainerTest, AFileInPlaceOfTheRunDirectoryIsNamed) {
  config_.output_dir = dir_.write("in-the-way", "x") + "/run";
  expect_error<UsageError>([&] { Trainer trainer(config_); }, {"in-the-way", "output_dir"});
}

}  // namespace
}  // namespace carousel
