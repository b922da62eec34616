#include "train/trainer.h"

#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "tests/support/errors.h"
#include "tests/support/event_file.h"
#include "tests/support/temp_dir.h"
#include "tests/train/trainer_run.h"
#include "train/run_directory.h"

namespace carousel {
namespace {

using testing::expect_error;
using testing::TrainerTest;

TEST_F(TrainerTest, WritesItsRunDirectory) {
  Trainer(config_).run();
  EXPECT_TRUE(std::filesystem::exists(run_path() / "config.yaml"));
  EXPECT_TRUE(std::filesystem::exists(run_path() / "train.log"));
  const auto rows = metrics();
  ASSERT_EQ(rows.size(), 13u);
  EXPECT_EQ(steps_with("loss"), (std::vector{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(steps_with("checkpoint_stall_ms"), (std::vector{2, 4, 6, 8}));
  EXPECT_EQ(steps_with("val_loss"), std::vector{8});
  EXPECT_LT(rows[10].at("loss").get<double>(), rows[0].at("loss").get<double>());
  EXPECT_FALSE(std::filesystem::exists(checkpoint(2)));  // keep: 3
  EXPECT_TRUE(std::filesystem::exists(checkpoint(8)));
}

TEST_F(TrainerTest, ItsReportTellsWhatTheRecordsTell) {
  config_.eval.every = 4;
  Trainer(config_).run();
  const std::string html = report();
  const auto rows = metrics();
  for (const std::string& part :
       {std::string("<h1>tiny</h1>\n<p>finished: step 8 of 8, at 20"), std::string("<polyline "),
        fmt::format("<title>step 1: {:.5g}</title>", rows[0].at("loss").get<double>()),
        fmt::format("<tr><td>4</td><td>{:.4f}</td>", evaluation(4)),
        fmt::format("<tr><td>8</td><td>{:.4f}</td>", evaluation(8)),
        std::string("<tr><th>device</th><td>cpu, "), std::string("\n  tokenizer: char\n")}) {
    EXPECT_NE(html.find(part), std::string::npos) << part << " is not in " << html;
  }
  EXPECT_FALSE(std::filesystem::exists(run_path() / "report.html.tmp"));
  EXPECT_FALSE(std::filesystem::exists(run_path() / "tensorboard"));  // nobody asked for it
}

TEST_F(TrainerTest, TheReportOfAStoppedRunGoesOnWithIt) {
  {
    Trainer trainer(config_);
    std::raise(SIGTERM);
    expect_error<Preempted>([&] { trainer.run(); }, {"after step 1"});
  }
  EXPECT_NE(report().find("<p>stopped on request: step 1 of 8, at "), std::string::npos);
  const std::string first = fmt::format("<title>step 1: {:.5g}</title>", losses()[0]);
  EXPECT_NE(report().find(first), std::string::npos) << report();
  Trainer(config_).run();
  EXPECT_NE(report().find("<p>finished: step 8 of 8, at "), std::string::npos);
  EXPECT_NE(report().find(first), std::string::npos) << report();
}

TEST_F(TrainerTest, EachEvaluationRenewsTheReport) {
  config_.eval.every = 2;
  config_.checkpoint.every = 4;
  Trainer trainer(config_);
  std::filesystem::create_directories(run_path() / "checkpoints");
  std::ofstream(checkpoint(4)) << "in the way";  // ends the run there
  expect_error<CheckpointError>([&] { trainer.run(); }, {"Not a directory"});
  EXPECT_NE(report().find("<p>training: step 4 of 8, at "), std::string::npos) << report();
  EXPECT_NE(report().find("<tr><td>2</td>"), std::string::npos) << report();
}

TEST_F(TrainerTest, AReportThatCannotBeWrittenIsAWarning) {
  std::filesystem::create_directories(run_path() / "report.html/in-the-way");
  ::testing::internal::CaptureStderr();
  EXPECT_NO_THROW(Trainer(config_).run());
  init_logging();
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find("no new report: cannot rename to"), std::string::npos) << text;
  EXPECT_TRUE(std::filesystem::exists(checkpoint(8)));
}

TEST_F(TrainerTest, TensorBoardGetsTheRecordsOfMetricsAndWhereARunIsResumed) {
  config_.logging.tensorboard = true;
  config_.eval.every = 4;
  {
    Trainer trainer(config_);
    std::raise(SIGTERM);
    expect_error<Preempted>([&] { trainer.run(); }, {"after step 1"});
  }
  Trainer(config_).run();
  const std::filesystem::path directory = run_path() / "tensorboard";
  std::vector<std::int64_t> starts;
  std::vector<std::pair<std::int64_t, std::map<std::string, float>>> events;
  for (const std::string& name : testing::entries(directory)) {
    for (const auto& event : testing::read_events(directory / name)) {
      if (event.start) starts.push_back(event.step);
      if (!event.scalars.empty()) events.emplace_back(event.step, event.scalars);
    }
  }
  EXPECT_EQ(starts, (std::vector<std::int64_t>{1, 2}));
  const auto rows = metrics();
  ASSERT_EQ(events.size(), rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(events[i].first, rows[i].at("step"));
    EXPECT_EQ(events[i].second.size() + 1, rows[i].size());
    for (const auto& [tag, value] : events[i].second) {
      const std::string key = tag.substr(tag.find('/') + 1);
      const std::string phase = tag.substr(0, tag.find('/'));
      const std::string name =
          phase == "train" ? key : (phase == "eval" ? "val_" : "checkpoint_") + key;
      EXPECT_EQ(value, static_cast<float>(rows[i].at(name).get<double>())) << tag;
    }
  }
}

TEST_F(TrainerTest, AnInterruptedRunEndsWithTheSameBits) {
  Trainer(config_).run();
  const auto whole = final_weights();
  const auto whole_losses = losses();
  config_.output_dir = dir_ / "broken";
  {
    Trainer trainer(config_);
    std::raise(SIGTERM);  // noticed behind the first step
    expect_error<Preempted>([&] { trainer.run(); }, {"after step 1", "start again"});
  }
  EXPECT_TRUE(std::filesystem::exists(checkpoint(1)));
  Trainer(config_).run();
  EXPECT_EQ(final_weights(), whole);
  EXPECT_EQ(losses(), whole_losses);
}

TEST_F(TrainerTest, AsynchronousCheckpointsAreTheSameBits) {
  config_.checkpoint.every = 1;
  config_.checkpoint.keep = 0;
  Trainer(config_).run();
  const auto synchronous = checkpoint_files();
  EXPECT_EQ(synchronous.size(), 8 * 6u);
  config_.output_dir = dir_ / "async";
  config_.checkpoint.async = true;
  Trainer(config_).run();
  EXPECT_EQ(checkpoint_files(), synchronous);
  EXPECT_EQ(steps_with("checkpoint_stall_ms"), (std::vector{1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST_F(TrainerTest, AnAsynchronousCheckpointIsWaitedForWhenTheRunIsStopped) {
  config_.checkpoint.async = true;
  for (const int every : {1, 100}) {  // begun behind the step, and only because of the signal
    config_.output_dir = dir_ / fmt::format("every-{}", every);
    config_.checkpoint.every = every;
    Trainer trainer(config_);
    std::raise(SIGTERM);
    expect_error<Preempted>([&] { trainer.run(); }, {"after step 1", "which is saved"});
    EXPECT_EQ(testing::entries(run_path() / "checkpoints"), std::vector{checkpoint_name(1)});
    EXPECT_EQ(Checkpoint::open(checkpoint(1)).step(), 1);
  }
}

TEST_F(TrainerTest, AFailingAsynchronousCheckpointEndsTheRun) {
  config_.checkpoint.async = true;
  config_.checkpoint.every = 25;
  config_.steps = 100;
  for (const int step : {50, 100}) {  // while it trains, and at its end
    config_.output_dir = dir_ / fmt::format("in-the-way-{}", step);
    Trainer trainer(config_);
    std::filesystem::create_directories(run_path() / "checkpoints");
    std::ofstream(checkpoint(step)) << "precious";
    expect_error<CheckpointError>([&] { trainer.run(); },
                                  {checkpoint(step).string() + "': Not a directory"});
    EXPECT_EQ(Checkpoint::open(checkpoint(step - 25)).step(), step - 25);
    EXPECT_LT(steps_with("loss").back(), step + 25);  // long before the next save
    EXPECT_EQ(testing::read_file(checkpoint(step)), "precious");
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

TEST_F(TrainerTest, TwoTrainersInOneDirectoryAreRefused) {
  const Trainer first(config_);
  expect_error<UsageError>([&] { Trainer second(config_); }, {"another process is training"});
}

TEST_F(TrainerTest, AVocabularyThatDoesNotFitIsNamed) {
  config_.model.vocab_size = 5;
  expect_error<UsageError>([&] { Trainer trainer(config_); }, {"model.vocab_size is 5"});
}

TEST_F(TrainerTest, ASampleTakesOnlyTokensThatTheTokenizerHas) {
  config_.model.vocab_size = 4000;
  config_.sample = {.every = 1, .prompt = "line", .tokens = 40};
  Trainer(config_).run();
  EXPECT_EQ(steps_with("loss").back(), 8);
}

TEST_F(TrainerTest, APromptThatCannotBeEncodedIsFoundAtTheStart) {
  config_.sample = {.every = 100, .prompt = "§"};
  expect_error<DataError>([&] { Trainer trainer(config_); }, {"sample.prompt", "U+00A7"});
}

TEST_F(TrainerTest, ANonFiniteLossKeepsTheLastGoodCheckpoint) {
  config_.optim.lr = 1e30;
  config_.optim.clip = 0;
  config_.optim.weight_decay = 0;
  config_.checkpoint.every = 1;
  EXPECT_EQ(static_cast<int>(ExitCode::kNonFinite), 6);
  for (const bool async : {false, true}) {
    config_.output_dir = dir_ / fmt::format("async-{}", async);
    config_.checkpoint.async = async;
    Trainer trainer(config_);
    expect_error<NonFiniteError>([&] { trainer.run(); }, {"first tensor that is not finite"});
    const auto newest = newest_good_checkpoint(run_path() / "checkpoints");
    ASSERT_TRUE(newest.has_value());
    EXPECT_EQ(newest->step(), steps_with("loss").back());
  }
}

TEST_F(TrainerTest, AFileInPlaceOfTheRunDirectoryIsNamed) {
  config_.output_dir = dir_.write("in-the-way", "x") + "/run";
  expect_error<UsageError>([&] { Trainer trainer(config_); }, {"in-the-way", "output_dir"});
}

}  // namespace
}  // namespace carousel
