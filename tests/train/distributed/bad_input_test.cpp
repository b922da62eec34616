// What is wrong with a group's start is told by one line of rank 0, and all leave with exit code 2.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "tests/support/errors.h"
#include "tests/support/group_program.h"
#include "tests/train/distributed/support.h"
#include "train/build_info.h"
#include "train/distributed/process_group.h"

namespace carousel {
namespace {

using testing::expect_error;
using testing::free_port;
using testing::GroupProcess;
using testing::Outcome;
using testing::run_group;
using testing::run_processes;
using testing::run_program;

class DistBadInput : public testing::TinyRun {
 protected:
  static void expect_line(const Outcome& outcome, const std::string& text) {
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    EXPECT_EQ(outcome.err.substr(0, text.size()), text);
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
  }

  /// Rank 0 tells `text` in one line; the others say nothing.
  static void expect_refused(const std::vector<Outcome>& outcomes, const std::string& text) {
    expect_line(outcomes.front(), text);
    for (std::size_t i = 1; i < outcomes.size(); ++i) {
      EXPECT_EQ(outcomes[i].code, 2);
      EXPECT_EQ(outcomes[i].err, "");
    }
  }

  std::string refused(const std::string& overrides = "") const {
    return command("refused", overrides);
  }
};

TEST_F(DistBadInput, WorldSizeWithoutRank) {
  ::setenv("WORLD_SIZE", "2", 1);
  const Outcome outcome = run_program(refused());
  ::unsetenv("WORLD_SIZE");
  expect_line(outcome, "error: the environment variable WORLD_SIZE is set without RANK; start ");
}

TEST_F(DistBadInput, ABatchThatDoesNotDivide) {
  expect_refused(run_group(3, refused()),
                 "error: data.batch_size = 8 does not divide among 3 processes; choose a multiple");
  expect_refused(run_group(2, refused("micro_batch_size=8")),
                 "error: micro_batch_size = 8 does not divide the 4 sequences of each of 2");
  expect_refused(run_group(3, refused("data.batch_size=9 distributed.deterministic=true")),
                 "error: distributed.deterministic needs a power of two of processes, there are 3");
}

TEST_F(DistBadInput, WhatAProcessAloneMayHaveItTellsItself) {
  for (const Outcome& o : run_group(2, refused("optim.lrr=1"))) {
    expect_line(o,
                "error: override 'optim.lrr=1': unknown key 'optim.lrr'; did you mean 'optim.lr'?");
  }
  expect_line(run_processes({{1, 2, "train nosuch.yaml"}}).front(), "error: nosuch.yaml: ");
  const std::string lost = fmt::format("MASTER_ADDR=nosuch.invalid '{}' {}", CAROUSEL_PROGRAM,
                                       refused("distributed.timeout_s=1"));
  expect_line(run_processes({{1, 2, lost, "env"}}).front(),
              "error: cannot resolve the host 'nosuch.invalid': ");
}

TEST_F(DistBadInput, DifferentConfigurations) {
  const auto other_rate = [](int rank) { return rank == 1 ? "optim.lr=0.5" : ""; };
  expect_refused(run_group(2, refused(), other_rate),
                 "error: rank 1 differs from rank 0: rank 1 has optim.lr=0.5, rank 0 has "
                 "optim.lr=0.003; start all ranks with the same program");
}

TEST_F(DistBadInput, DifferentBuilds) {
  std::string bytes = testing::read_file(CAROUSEL_PROGRAM);
  const std::string build =
      *build_info().git_commit == '\0' ? build_info().version : build_info().git_commit;
  const std::string other_build = (build[0] == '9' ? '8' : '9') + build.substr(1);
  int replaced = 0;
  for (std::size_t at = 0; (at = bytes.find(build, at)) != std::string::npos; ++replaced) {
    bytes.replace(at, build.size(), other_build);
  }
  ASSERT_GT(replaced, 0);
  const std::string other = dir_.write("carousel", bytes);
  std::filesystem::permissions(other, std::filesystem::perms::owner_all);
  const auto outcomes = run_processes({{0, 2, refused()}, {1, 2, refused(), other}});
  expect_refused(outcomes, "error: rank 1 differs from rank 0: rank 1 has build=carousel ");
  EXPECT_NE(outcomes[0].err.find(other_build), std::string::npos) << outcomes[0].err;
}

TEST_F(DistBadInput, DifferentWorldSizes) {
  const std::string arguments = refused("data.batch_size=12");
  expect_refused(run_processes({{0, 2, arguments}, {1, 3, arguments}}),
                 "error: rank 1 differs from rank 0: rank 1 has world size=3, rank 0 has world "
                 "size=2; ");
}

TEST_F(DistBadInput, TwoProcessesOfOneRank) {
  // Rank 2 never comes, so that neither can be late.
  const std::string arguments = refused("data.batch_size=9");
  const auto outcomes = run_processes({{0, 3, arguments}, {1, 3, arguments}, {1, 3, arguments}});
  const std::string text = "error: two processes claim rank 1 of 3, the second is process ";
  expect_line(outcomes[0], text);
  // The second one tells, too, whichever that is; the first one does not.
  const bool first = outcomes[1].err.empty();
  EXPECT_EQ(outcomes[first ? 1 : 2].code, 2);
  EXPECT_EQ(outcomes[first ? 1 : 2].err, "");
  expect_line(outcomes[first ? 2 : 1], text);

  for (const Outcome& o : run_processes({{0, 2, refused()}, {0, 2, refused()}})) {
    expect_line(o, "error: two processes claim rank 0 of 2, the second is process ");
  }
}

TEST_F(DistBadInput, APortInUse) {
  const std::uint16_t port = free_port();
  const comm::Socket taken = comm::listen_on(port);
  // Through the launcher, which ends rank 1: that cannot know whose port it is.
  const Outcome outcome =
      run_program(fmt::format("run --nproc-per-node 2 --master-port {} {}", port, refused()));
  const std::string problem = fmt::format(
      "cannot listen on port {}: Address already in use; choose another MASTER_PORT\n", port);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.err.substr(0, 16 + problem.size()), "[rank0]: error: " + problem);
  EXPECT_EQ(outcome.err.substr(16 + problem.size(), 18), "error: rank 0 (pid");
  EXPECT_TRUE(outcome.err.ends_with("failed first, with exit code 2: " + problem)) << outcome.err;
  EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 2) << outcome.err;
}

TEST(BadInput, MoreProcessesThanGpus) {
  const auto process = [](int local_rank, int local_world_size, const char* launcher) {
    return LaunchEnvironment{
        .launcher = launcher, .local_rank = local_rank, .local_world_size = local_world_size};
  };
  EXPECT_EQ(gpu_of_process(process(0, 1, "none"), 8), 0);
  EXPECT_EQ(gpu_of_process(process(7, 8, "torchrun"), 8), 7);
  EXPECT_EQ(gpu_of_process(process(1, 2, "srun"), 1), 0);  // each sees a GPU of its own
  const auto refuse = [](const LaunchEnvironment& launch, int gpus, const std::string& text) {
    expect_error<UsageError>([&] { gpu_of_process(launch, gpus); }, {text});
  };
  refuse(process(0, 4, "torchrun"), 2, "4 processes on this host, but 2 GPUs; start at most");
  refuse(process(1, 2, "torchrun"), 1, "2 processes on this host, but 1 GPU; start at most");
  refuse(process(0, 8, "srun"), 4, "8 processes on this host, but 4 GPUs");
  refuse(process(2, 1, "mpirun"), 2, "3 processes on this host, but 2 GPUs");  // no local size told
}

TEST(BadInput, OnlyTheFirstProcessOfAHostTellsWhatAllKnow) {
  const auto all_fail = []() -> int { throw comm::KnownToAll("a bad thing"); };
  expect_error<UsageError>([&] { told_once({.local_rank = 0}, all_fail); }, {"a bad thing"});
  EXPECT_EQ(testing::message_of<UsageError>([&] { told_once({.local_rank = 1}, all_fail); }), "");
  const auto fails = []() -> int { throw UsageError("a bad thing of its own"); };
  expect_error<UsageError>([&] { told_once({.local_rank = 1}, fails); }, {"of its own"});
  EXPECT_EQ(told_once({.local_rank = 1}, [] { return 5; }), 5);
}

}  // namespace
}  // namespace carousel
