// Signals, deaths and hangs of the processes of a run, through `carousel run` and without it.
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/background_program.h"
#include "tests/support/group_program.h"
#include "tests/train/distributed/support.h"

namespace carousel {
namespace {

using testing::alive;
using testing::BackgroundProgram;
using testing::becomes_true;
using testing::free_port;
using testing::Outcome;
using testing::read_file;
using testing::run_program;
using Clock = std::chrono::steady_clock;

constexpr int kLauncher = -1;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

void expect_in(const std::string& part, const std::string& text) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

class DistFaults : public testing::TinyRun {
 protected:
  /// `carousel run` of so many ranks that train "run" for a long time.
  std::string launch(int ranks, const std::string& overrides, const std::string& options = "") {
    return fmt::format("run --standalone --nproc-per-node {} {} {}", ranks, options,
                       command("run", "steps=100000 logging.every=1 " + overrides));
  }

  static pid_t process(const BackgroundProgram& program, int rank) {
    return rank == kLauncher ? program.pid()
                             : program.children().at(static_cast<std::size_t>(rank));
  }

  std::vector<std::int64_t> checkpoints() const {
    std::vector<std::int64_t> steps;
    for (const auto& entry : std::filesystem::directory_iterator(dir_ / "run/checkpoints")) {
      steps.push_back(std::stoll(entry.path().filename().string().substr(5)));
    }
    std::ranges::sort(steps);
    return steps;
  }

  /// The steps of the evaluations in metrics.jsonl.
  std::vector<std::int64_t> evaluations() const {
    std::istringstream lines(read_file(dir_ / "run/metrics.jsonl"));
    std::vector<std::int64_t> steps;
    for (std::string line; std::getline(lines, line);) {
      const auto json = nlohmann::json::parse(line);
      if (json.contains("val_loss")) steps.push_back(json.at("step"));
    }
    return steps;
  }

  /// Starts a run, sends `signal` to one of its processes when it has printed `when`, and expects
  /// that all ranks stop at one step, which it returns.
  std::int64_t stop(int ranks, int signal, int target, const std::string& when,
                    const std::string& overrides) {
    BackgroundProgram program(launch(ranks, overrides));
    EXPECT_TRUE(program.prints(when)) << program.output();
    const auto begin = Clock::now();
    ::kill(process(program, target), signal);
    EXPECT_EQ(program.wait(), 75) << program.output();
    EXPECT_LT(seconds_since(begin), 10.0);
    const std::int64_t step = checkpoints().back();
    for (int r = 0; r < ranks; ++r) {
      expect_in(fmt::format("[rank{}]: stopped by the signal '{}' after step {}, which is saved", r,
                            ::strsignal(signal), step),
                program.output());
    }
    return step;
  }

  /// Goes on for three steps.
  void resume(std::int64_t step, const std::string& overrides = "") {
    const Outcome outcome = run_program(launch(2, fmt::format("steps={} {}", step + 3, overrides)));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    expect_in(fmt::format("resuming at step {} of {}", step + 1, step + 3), outcome.err);
    EXPECT_EQ(checkpoints().back(), step + 3);
  }

  void write_long_text() {
    std::string text;
    for (int i = 0; i < 20000; ++i) text += fmt::format("line {} of a longer text.\n", i);
    long_text_ = dir_.write("long.txt", text);
  }

  std::string long_text_;
};

TEST_F(DistFaults, ASignalToAnyProcessStopsAllAtOneStep) {
  resume(stop(2, SIGTERM, 0, "step 3/", ""));
  resume(stop(4, SIGUSR1, 3, "resuming", "distributed.zero_stage=1"));
  resume(stop(2, SIGTERM, kLauncher, "resuming", "checkpoint.async=true checkpoint.every=2"));
}

// All of the long text takes minutes.
TEST_F(DistFaults, AStopInTheMiddleOfAnEvaluation) {
  write_long_text();
  const std::string validation = fmt::format("data.val='{}' micro_batch_size=2 ", long_text_);
  const auto stopped = [&](int signal, int rank) {
    std::filesystem::remove_all(dir_ / "run");
    EXPECT_EQ(stop(2, signal, rank, "step 2/", validation + "eval.every=2 eval.batches=0"), 2);
    EXPECT_TRUE(evaluations().empty());
  };
  stopped(SIGTERM, 1);
  stopped(SIGUSR1, 0);
  // It is made up for, once.
  for (int i = 0; i < 2; ++i) {
    const Outcome outcome =
        run_program(launch(2, validation + "steps=2 eval.every=2 eval.batches=3"));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(evaluations(), (std::vector<std::int64_t>{2}));
  }
  resume(2, validation + "eval.batches=3");
  EXPECT_EQ(evaluations(), (std::vector<std::int64_t>{2, 5}));
}

TEST_F(DistFaults, AStopInTheMiddleOfTheLastEvaluation) {
  write_long_text();
  const std::string overrides = fmt::format("data.val='{}' steps=2 ", long_text_);
  EXPECT_EQ(stop(2, SIGTERM, 1, "step 2/2", overrides + "eval.batches=0"), 2);
  const Outcome outcome = run_program(launch(2, overrides + "eval.batches=3"));
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(evaluations(), (std::vector<std::int64_t>{2}));
}

TEST_F(DistFaults, AStopInTheMiddleOfASample) {
  const std::string sample = "sample.every=2 sample.tokens=1000000";
  EXPECT_EQ(stop(2, SIGTERM, 1, "step 2/", sample), 2);
  resume(2);
  std::filesystem::remove_all(dir_ / "run");
  EXPECT_EQ(stop(2, SIGUSR1, 0, "step 2/", sample), 2);
}

TEST_F(DistFaults, AKilledRankIsNamedWithinASecondOrTwo) {
  BackgroundProgram program(launch(4, ""));
  ASSERT_TRUE(program.prints("step 3/")) << program.output();
  const pid_t victim = process(program, 2);
  const auto begin = Clock::now();
  ::kill(victim, SIGKILL);
  const std::string named = fmt::format("rank 2 (pid {}) failed first, killed by signal 9", victim);
  EXPECT_TRUE(program.prints(named));
  EXPECT_LT(seconds_since(begin), 3.0);  // a second where the machine is idle
  EXPECT_EQ(program.wait(), 128 + SIGKILL);
  EXPECT_LT(seconds_since(begin), 10.0);
  for (const int r : {0, 1, 3}) expect_in(fmt::format("[rank{}]: error: ", r), program.output());
  expect_in(fmt::format("rank 2 (process {} on ", victim), program.output());
  expect_in("error: " + named, program.output());
}

TEST_F(DistFaults, WithoutALauncherTheOthersLeaveWithSeven) {
  for (const std::size_t victim : {1u, 0u}) {
    const std::uint16_t port = free_port();
    std::vector<std::unique_ptr<BackgroundProgram>> ranks;
    for (int r = 0; r < 3; ++r) {
      ranks.push_back(std::make_unique<BackgroundProgram>(
          command("run", "data.batch_size=9 steps=100000 logging.every=1"),
          fmt::format("RANK={0} LOCAL_RANK={0} WORLD_SIZE=3 LOCAL_WORLD_SIZE=3 MASTER_PORT={1}", r,
                      port)));
    }
    ASSERT_TRUE(ranks[0]->prints("step 3/")) << ranks[0]->output();
    const auto begin = Clock::now();
    ranks[victim]->signal(SIGKILL);
    const std::string blame =
        victim == 0 ? "failed: rank 0 died or does not respond (the store at "
                    : fmt::format("failed: rank 1 (process {} on ", ranks[victim]->pid());
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      if (r == victim) continue;
      EXPECT_EQ(ranks[r]->wait(), 7);
      expect_in(blame, ranks[r]->output());
      expect_in("(collective ", ranks[r]->output());
    }
    EXPECT_LT(seconds_since(begin), 10.0);
  }
}

TEST_F(DistFaults, AStoppedRankIsNamedWithTheCollective) {
  const std::string options = "distributed.timeout_s=2 output_dir=";
  BackgroundProgram zero(launch(2, options + (dir_ / "zero")));
  BackgroundProgram one(launch(2, options + (dir_ / "one")));
  ASSERT_TRUE(zero.prints("step 3/")) << zero.output();
  ASSERT_TRUE(one.prints("step 3/")) << one.output();
  std::this_thread::sleep_for(std::chrono::milliseconds(600));  // a heartbeat
  const auto begin = Clock::now();
  ::kill(process(zero, 0), SIGSTOP);
  ::kill(process(one, 1), SIGSTOP);
  const auto expect_named = [](BackgroundProgram& program, int witness, const std::string& blame) {
    EXPECT_EQ(program.wait(), 7);
    for (const std::string& part : {fmt::format("error: rank {} (pid ", witness), blame,
                                    std::string("(collective "), std::string("waiting 2000ms")}) {
      expect_in(part, program.output());
    }
  };
  expect_named(zero, 1, "failed: rank 0 died or does not respond (");
  expect_named(one, 0, "failed: rank 1 does not respond, last heard of in ");
  EXPECT_LT(seconds_since(begin), 12.0);
}

TEST_F(DistFaults, NoRankOutlivesTheLauncher) {
  BackgroundProgram program(launch(3, "data.batch_size=9"));
  ASSERT_TRUE(program.prints("step 3/")) << program.output();
  const std::vector<pid_t> ranks = program.children();
  ASSERT_EQ(ranks.size(), 3u);
  program.signal(SIGKILL);
  EXPECT_EQ(program.wait(), 128 + SIGKILL);
  for (const pid_t rank : ranks) EXPECT_TRUE(becomes_true([&] { return !alive(rank); }));
}

TEST_F(DistFaults, ARestartGoesOnFromTheNewestGoodCheckpoint) {
  BackgroundProgram program(
      launch(2, "steps=200 checkpoint.every=10 checkpoint.keep=0", "--max-restarts 1"));
  ASSERT_TRUE(program.prints("step 31/")) << program.output();
  // Both stand still while the newest checkpoint is damaged.
  const std::vector<pid_t> ranks = program.children();
  for (const pid_t rank : ranks) ::kill(rank, SIGSTOP);
  const std::int64_t newest = checkpoints().back();
  dir_.write(fmt::format("run/checkpoints/step-{:08}/model.safetensors", newest), "damaged");
  ::kill(ranks[1], SIGKILL);
  ::kill(ranks[0], SIGKILL);
  EXPECT_EQ(program.wait(), 0) << program.output();
  expect_in("starting all ranks again, restart 1 of 1", program.output());
  expect_in(fmt::format("step-{:08}", newest), program.output());  // is named
  expect_in(fmt::format("resuming at step {} of 200", newest - 10 + 1), program.output());
  EXPECT_EQ(checkpoints().back(), 200);
}

}  // namespace
}  // namespace carousel
