// Whole runs in several processes over gloo.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/event_file.h"
#include "tests/support/group_program.h"
#include "tests/train/checkpoint/support.h"
#include "tests/train/distributed/support.h"

namespace carousel {
namespace {

using testing::Outcome;
using testing::read_file;
using testing::run_group;

class DistTraining : public testing::TinyRun {
 protected:
  void train(int world, const std::string& run, const std::string& overrides = "") const {
    const auto outcomes = run_group(world, command(run, overrides));
    for (const Outcome& o : outcomes) ASSERT_EQ(o.code, 0) << o.err;
    for (std::size_t r = 1; r < outcomes.size(); ++r) EXPECT_EQ(outcomes[r].err, "");
  }

  /// The losses of all steps, and the last evaluation's.
  std::vector<double> losses(const std::string& run) const {
    std::istringstream lines(read_file(dir_ / (run + "/metrics.jsonl")));
    std::vector<double> all;
    for (std::string line; std::getline(lines, line);) {
      const auto json = nlohmann::json::parse(line);
      if (json.contains("checkpoint_stall_ms")) continue;
      all.push_back(json.contains("loss") ? json.at("loss") : json.at("val_loss"));
    }
    return all;
  }

  void expect_close(const std::string& run, const std::string& to) const {
    const auto a = losses(run);
    const auto b = losses(to);
    ASSERT_EQ(a.size(), 51u);
    ASSERT_EQ(b.size(), 51u);
    for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-5) << i;
  }

  std::string weights(const std::string& run) const {
    return read_file(dir_ / (run + "/checkpoints/step-00000050/model.safetensors"));
  }
};

TEST_F(DistTraining, LossesDoNotDependOnTheNumberOfProcesses) {
  train(1, "one");
  train(2, "two", "distributed.bucket_mb=1 distributed.overlap=true");
  train(4, "four");
  expect_close("two", "one");
  expect_close("four", "one");
}

TEST_F(DistTraining, TheFirstProcessAloneKeepsTheRecords) {
  train(2, "two", "steps=3 logging.tensorboard=true");
  const auto files = testing::entries(dir_ / "two/tensorboard");
  ASSERT_EQ(files.size(), 1u);
  int steps = 0;
  for (const auto& event : testing::read_events(dir_ / ("two/tensorboard/" + files[0]))) {
    steps += static_cast<int>(event.scalars.count("train/loss"));
  }
  EXPECT_EQ(steps, 3);
  const std::string report = read_file(dir_ / "two/report.html");
  for (const char* part : {"finished: step 3 of 3", "<tr><th>processes</th><td>2</td></tr>"}) {
    EXPECT_NE(report.find(part), std::string::npos) << report;
  }
}

TEST_F(DistTraining, AShardedOptimizerTrainsTheSame) {
  train(2, "plain");
  train(2, "sharded", "distributed.zero_stage=1");
  expect_close("sharded", "plain");
  train(2, "narrow", "precision=bf16");
  train(2, "narrow_sharded", "precision=bf16 distributed.zero_stage=1");
  expect_close("narrow_sharded", "narrow");
}

TEST_F(DistTraining, TheDeterministicModeGivesTheSameBits) {
  for (const std::string precision : {"f32", "bf16"}) {
    const std::string mode =
        "distributed.deterministic=true micro_batch_size=1 precision=" + precision;
    train(1, "one" + precision, mode);
    train(2, "two" + precision, mode);
    train(4, "four" + precision, mode + " distributed.zero_stage=1");
    EXPECT_GT(weights("one" + precision).size(), 1000u);
    EXPECT_EQ(weights("two" + precision), weights("one" + precision));
    EXPECT_EQ(weights("four" + precision), weights("one" + precision));
  }
}

TEST_F(DistTraining, AnotherNumberOfProcessesResumesTheRun) {
  for (const std::string precision : {"f32", "bf16"}) {
    const std::string mode =
        "distributed.deterministic=true micro_batch_size=1 precision=" + precision;
    const std::string part = "part" + precision;
    train(1, "whole" + precision, mode);
    const auto train_some = [&](int world, const char* more) {
      train(world, part, fmt::format("{} {}", mode, more));
    };
    train_some(4, "distributed.zero_stage=1 steps=17");
    train_some(2, "distributed.zero_stage=1 steps=30");
    train_some(1, "steps=41");
    train_some(2, "distributed.zero_stage=1");
    EXPECT_EQ(weights(part), weights("whole" + precision));
    ASSERT_FALSE(losses(part).empty());
    EXPECT_EQ(losses(part).back(), losses("whole" + precision).back());
  }
}

TEST_F(DistTraining, AsynchronousCheckpointsAreTheSameBits) {
  // Without a shard; with one a process, of the moments and then of the masters, too.
  for (const std::string mode : {"distributed.zero_stage=0", "distributed.zero_stage=1",
                                 "precision=bf16 distributed.zero_stage=1"}) {
    train(2, mode, mode + " steps=12 checkpoint.every=2");
    train(2, mode + "-async", mode + " steps=12 checkpoint.every=2 checkpoint.async=true");
    for (const std::string step : {"08", "10", "12"}) {
      const auto files = [&](const std::string& run) {
        std::map<std::string, std::string> all;
        const std::string path = dir_ / (run + "/checkpoints/step-000000" + step);
        for (const std::string& name : testing::entries(path)) {
          all[name] = read_file(path + "/" + name);
        }
        return all;
      };
      EXPECT_EQ(files(mode).size(), mode.ends_with('1') ? 7u : 6u);
      EXPECT_EQ(files(mode + "-async"), files(mode)) << mode << " step " << step;
    }
  }
}

TEST_F(DistTraining, AFailingAsynchronousCheckpointEndsAllProcesses) {
  std::vector<Outcome> outcomes;
  const rlimit limit{20'000, RLIM_INFINITY};  // less than any file of weights or moments
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);  // which the processes inherit
  for (const std::string mode : {"distributed.zero_stage=0", "distributed.zero_stage=1",
                                 "precision=bf16 distributed.zero_stage=1"}) {
    const auto some = run_group(2, command(mode, mode + " steps=1000 checkpoint.every=2 "
                                                        "checkpoint.async=true"));
    outcomes.insert(outcomes.end(), some.begin(), some.end());
  }
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  for (std::size_t i = 0; i < outcomes.size(); i += 2) {
    // With shards, the other process may have failed by itself, too.
    const bool first = outcomes[i].code == 4;
    const Outcome& failed = outcomes[first ? i : i + 1];
    const Outcome& other = outcomes[first ? i + 1 : i];
    EXPECT_EQ(failed.code, 4) << failed.err;
    EXPECT_NE(failed.err.find("File too large; raise the limit"), std::string::npos) << failed.err;
    EXPECT_TRUE(other.code == 7 || other.code == 4) << other.code << other.err;
  }
}

TEST_F(DistTraining, AFailureOfOneRankEndsTheOthers) {
  dir_.write("occupied", "a file where the run directory should be");
  const auto outcomes = run_group(2, command("occupied/run", ""));
  EXPECT_EQ(outcomes[0].code, 2) << outcomes[0].err;
  EXPECT_EQ(outcomes[1].code, 7) << outcomes[1].err;
  EXPECT_NE(outcomes[1].err.find("rank 0 stopped: cannot create the run directory"),
            std::string::npos)
      << outcomes[1].err;
}

}  // namespace
}  // namespace carousel
