#include "train/resume.h"

#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>

#include "tests/support/errors.h"
#include "tests/train/trainer_run.h"
#include "train/interchange/export.h"
#include "train/interchange/import.h"
#include "train/trainer.h"

namespace carousel {
namespace {

using testing::expect_error;
using testing::read_file;

class Resume : public testing::TrainerTest {
 protected:
  /// Starts the run, which a signal stops behind its first step.
  void start_and_stop() {
    Trainer trainer(config_);
    std::raise(SIGTERM);
    expect_error<Preempted>([&] { trainer.run(); }, {"which is saved"});
  }
  void refuses(std::initializer_list<std::string> parts) {
    expect_error<CheckpointError>([&] { Trainer trainer(config_); }, parts);
  }
  /// Trains a model, exports it, and imports it as config_'s run.
  void import_a_trained_model() {
    Trainer(config_).run();
    const Checkpoint trained = Checkpoint::open(checkpoint(8));
    export_model(trained, dir_ / "published", {});
    const std::string text = config_.data.train.front();
    import_model(dir_ / "published", dir_ / "imported",
                 {.tokenizer = (trained.path() / "tokenizer.json").string()});
    config_ = load_config(dir_ / "imported/config.yaml",
                          {"data.train=" + text, "data.seq_len=16", "data.batch_size=4", "steps=2",
                           "device=cpu", "schedule.warmup=0"});
  }
};

TEST_F(Resume, ARunThatLeavesAnotherGoesOnWithItsOwnCheckpoints) {
  Trainer(config_).run();
  const auto whole = final_weights();
  for (const std::string from :
       {"run/checkpoints/step-00000004", "run/checkpoints/step-00000004/"}) {
    config_.output_dir = dir_ / "other";
    config_.checkpoint.resume = dir_ / from;
    start_and_stop();
    EXPECT_EQ(testing::entries(dir_ / "other/checkpoints"), std::vector{checkpoint_name(5)});
    // The same command again, even when what it came from is gone.
    std::filesystem::rename(dir_ / "run", dir_ / "moved");
    Trainer(config_).run();
    EXPECT_EQ(steps_with("loss"), (std::vector{5, 6, 7, 8}));
    EXPECT_EQ(final_weights(), whole);
    config_.checkpoint.resume = "auto";
    config_.steps = 9;
    Trainer(config_).run();
    config_.checkpoint.resume = dir_ / from;
    config_.steps = 10;
    Trainer(config_).run();
    EXPECT_EQ(steps_with("loss").back(), 10);
    std::filesystem::rename(dir_ / "moved", dir_ / "run");
    std::filesystem::remove_all(dir_ / "other");
    config_.steps = 8;
  }
}

TEST_F(Resume, GoingBackIsRefusedWhileLaterCheckpointsAreThere) {
  Trainer(config_).run();
  const auto whole = final_weights();
  const std::string config_yaml = read_file(run_path() / "config.yaml");
  config_.checkpoint.resume = checkpoint(4);
  expect_error<UsageError>([&] { Trainer trainer(config_); },
                           {"step-00000004' is of step 4", "up to step 8", "move those away"});
  EXPECT_EQ(read_file(run_path() / "config.yaml"), config_yaml);
  EXPECT_EQ(steps_with("loss").back(), 8);
  for (const int later : {6, 8}) std::filesystem::remove_all(checkpoint(later));
  start_and_stop();
  EXPECT_TRUE(std::filesystem::exists(checkpoint(5)));
  Trainer(config_).run();
  EXPECT_EQ(final_weights(), whole);
}

TEST_F(Resume, ARunDirectoryStandsForItsNewestCheckpoint) {
  Trainer(config_).run();
  config_.checkpoint.resume = run_path();
  config_.output_dir = dir_ / "other";
  config_.steps = 9;
  Trainer(config_).run();
  EXPECT_EQ(steps_with("loss"), std::vector{9});
  config_.checkpoint.resume = dir_ / "nothing";
  config_.output_dir = dir_ / "third";
  refuses({"nothing' holds no good checkpoint", "give a run directory"});
}

TEST_F(Resume, NeverProtectsAnOldRun) {
  Trainer(config_).run();
  config_.checkpoint.resume = "never";
  expect_error<UsageError>([&] { Trainer trainer(config_); }, {"already holds checkpoints"});
}

TEST_F(Resume, AnotherConfigurationIsRefusedByKeyAndLeavesTheOld) {
  Trainer(config_).run();
  const std::string config_yaml = read_file(run_path() / "config.yaml");
  config_.model.xlstm_large.embedding_dim = 64;
  config_.data.document_boundaries = true;
  config_.optim.clip = 2;
  refuses({"another configuration", "\n  model.embedding_dim: 32, now 64", "\n  optim.clip: 1",
           "\n  data.document_boundaries: false, now true"});
  EXPECT_EQ(read_file(run_path() / "config.yaml"), config_yaml);
  EXPECT_EQ(load_trained_model(run_path(), DeviceChoice::kUseCpu).step, 8);
}

TEST_F(Resume, WhatSavesMemoryMayChange) {
  Trainer(config_).run();
  config_.steps = 9;
  config_.micro_batch_size = 2;
  config_.recompute = true;
  Trainer(config_).run();
  EXPECT_EQ(steps_with("loss").back(), 9);
}

TEST_F(Resume, OtherDataUnderTheSameNameAreRefused) {
  Trainer(config_).run();
  const std::string text = read_file(config_.data.train.front());
  dir_.write("text.txt", text + "line 1 of a small text.\n");
  config_.steps = 9;
  expect_error<DataError>([&] { Trainer trainer(config_); },
                          {"data.train has ", " tokens, but had ", "restore the files"});
  dir_.write("text.txt", text);
  Trainer(config_).run();
}

TEST_F(Resume, AnImportedModelIsTrainedFromStepZero) {
  import_a_trained_model();
  const auto imported = final_weights();
  config_.optim.weight_decay = 0;
  config_.optim.lr = 1e-30;
  Trainer(config_).run();
  EXPECT_EQ(steps_with("loss"), (std::vector{1, 2}));
  EXPECT_EQ(final_weights(), imported);
  config_.steps = 3;
  Trainer(config_).run();
  EXPECT_EQ(steps_with("loss"), (std::vector{1, 2, 3}));
}

TEST_F(Resume, AnImportedModelStartsARunElsewhere) {
  import_a_trained_model();
  config_.checkpoint.resume = dir_ / "imported";
  config_.output_dir = dir_ / "tuned";
  config_.model.xlstm_large.dropout = 0.2;  // not a matter of the weights
  Trainer(config_).run();
  Trainer(config_).run();
  EXPECT_EQ(steps_with("loss"), (std::vector{1, 2}));
  EXPECT_EQ(testing::entries(dir_ / "imported/checkpoints"), std::vector{checkpoint_name(0)});
}

TEST_F(Resume, AnotherModelThanTheImportedIsRefused) {
  import_a_trained_model();
  config_.model.xlstm_large.norm_eps *= 2;
  refuses({"step-00000000'", "\n  model.norm_eps: "});
}

}  // namespace
}  // namespace carousel
