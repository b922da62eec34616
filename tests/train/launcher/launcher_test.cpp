// The launcher with shell scripts for workers; `carousel run` itself is in commands/run_test.cpp.
#include "train/launcher/launcher.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <functional>
#include <thread>

#include "core/base/error.h"
#include "tests/support/background_program.h"
#include "tests/support/child.h"
#include "tests/support/temp_dir.h"
#include "train/launcher/worker_group.h"

namespace carousel {
namespace {

using testing::alive;
using testing::read_file;
using testing::TempDir;
using Clock = std::chrono::steady_clock;

struct Launched {
  int code = 0;
  std::string message;
  std::string out;  ///< what came on stdout and stderr
  double seconds = 0;
};

// Runs launch() in a child process, whose output and signals are its own; `meanwhile` gets its id.
Launched run(const LaunchOptions& options, const std::string& script,
             const std::function<void(pid_t)>& meanwhile = {}) {
  const TempDir dir;
  const auto begin = Clock::now();
  const pid_t child = ::fork();
  if (child == 0) {
    if (std::freopen((dir / "out").c_str(), "w", stdout) == nullptr ||
        ::dup2(STDOUT_FILENO, STDERR_FILENO) < 0) {
      ::_exit(99);
    }
    int code = 0;
    try {
      launch(make_launch_plan(options, {.gpus = 0, .cores = 4}), "/bin/sh", {"sh", "-c", script});
    } catch (const Error& e) {
      code = static_cast<int>(e.code());
      std::ofstream(dir / "message") << e.what();
    }
    ::_exit(code);
  }
  if (meanwhile) meanwhile(child);
  int status = 0;
  ::waitpid(child, &status, 0);
  const std::chrono::duration<double> elapsed = Clock::now() - begin;
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
          read_file(dir / "message"), read_file(dir / "out"), elapsed.count()};
}

LaunchOptions workers(int n) { return {.nproc_per_node = std::to_string(n), .standalone = true}; }

void expect_in(const std::string& part, const std::string& text) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

// Waits until a file has something in it.
void wait_for(const std::string& path) {
  for (int i = 0; i < 500 && read_file(path).empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

TEST(LauncherDist, LinesAreWholeAndHaveTheirRank) {
  const Launched got = run(workers(4),
                           "for i in 1 2 3 4 5 6 7 8 9; do for half in he llo; do "
                           "printf $half; done; printf ' %s\\n' $RANK; done; printf end >&2");
  EXPECT_EQ(got.code, 0);
  std::istringstream lines(got.out);
  int hello = 0;
  int end = 0;
  for (std::string line; std::getline(lines, line);) {
    ASSERT_TRUE(line.starts_with("[rank")) << line;
    const std::string rank = line.substr(5, 1);
    if (line == "[rank" + rank + "]: hello " + rank) ++hello;
    if (line == "[rank" + rank + "]: end") ++end;
  }
  EXPECT_EQ(hello, 36) << got.out;
  EXPECT_EQ(end, 4) << got.out;
}

TEST(LauncherDist, TheFirstFailureIsNamedWithItsMessageAndCode) {
  const Launched got = run(workers(3),
                           "if [ $RANK = 1 ]; then echo 'error: a bad thing' >&2; exit 3; fi; "
                           "exec sleep 60");
  EXPECT_EQ(got.code, 3);
  expect_in("rank 1 (pid ", got.message);
  expect_in("failed first, with exit code 3: a bad thing", got.message);
  EXPECT_LT(got.seconds, 5.0);
}

TEST(LauncherDist, PeersThatReportADeathAreNotToBlame) {
  const Launched got = run(workers(2),
                           "if [ $RANK = 0 ]; then echo 'error: rank 1 is gone' >&2; exit 7; fi; "
                           "sleep 0.1; kill -9 $$");
  EXPECT_EQ(got.code, 128 + SIGKILL);
  expect_in("rank 1 (pid ", got.message);
  expect_in("killed by signal 9 (Killed)", got.message);
}

TEST(LauncherDist, ARankThatSaysWhyIsNamedBeforeOnesThatDoNot) {
  const Launched got = run(workers(3),
                           "if [ $RANK = 0 ]; then sleep 0.1; echo 'error: a bad thing' >&2; fi; "
                           "exit 2");
  EXPECT_EQ(got.code, 2);
  expect_in("rank 0 (pid ", got.message);
  expect_in("failed first, with exit code 2: a bad thing", got.message);
  EXPECT_EQ(got.out, "[rank0]: error: a bad thing\n");  // and not again before all have ended
}

TEST(LauncherDist, ThoseThatDoNotEndAreKilled) {
  const auto shell = [](const char* script) {
    return WorkerStart{.program = "/bin/sh", .command = {"sh", "-c", script}};
  };
  LauncherSignals signals;
  WorkerGroup group({shell("trap '' TERM; sleep 60"), shell("sleep 0.1; exit 70")},
                    {.first_rank = 4,
                     .check_interval = std::chrono::seconds(20),  // counts until one fails
                     .patience = std::chrono::milliseconds(1200)},
                    signals);
  std::string told;
  const auto begin = Clock::now();
  const GroupEnd end = group.wait([&](const WorkerFailure& failure) { told = to_string(failure); });
  ASSERT_TRUE(end.failure);
  EXPECT_EQ(end.failure->rank, 5);
  EXPECT_EQ(told, to_string(*end.failure));
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(10));
}

TEST(LauncherDist, AStoppedRankIsWokenUpToEnd) {
  const Launched got = run(workers(2), "[ $RANK = 0 ] && kill -STOP $$; sleep 0.1; exit 70");
  EXPECT_EQ(got.code, 70);
  EXPECT_LT(got.seconds, 5.0);  // less than the launcher's patience
}

TEST(LauncherDist, SignalsArePassedOn) {
  const TempDir dir;
  const std::string script =
      "trap 'exit 75' USR1; echo $$ >>" + (dir / "pids") + "; while :; do sleep 0.02; done";
  const Launched got = run(workers(2), script, [&](pid_t launcher) {
    while (read_file(dir / "pids").find('\n') == read_file(dir / "pids").rfind('\n')) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ::kill(launcher, SIGUSR1);
  });
  EXPECT_EQ(got.code, 75);
  expect_in("stopped after saving", got.message);
}

TEST(LauncherDist, SignalsArePassedOnWhileNobodyReadsTheConsole) {
  const TempDir dir;
  std::array<int, 2> console{};
  ASSERT_EQ(::pipe(console.data()), 0);
  // More than that pipe holds, less than it and the worker's own.
  const std::string script =
      "trap 'echo saved >" + (dir / "saved") +
      "; exit 75' TERM; for i in $(seq 1000 1099); do printf '%01000d\\n' $i;"
      " done; echo $$ >" +
      (dir / "pid") + "; while :; do sleep 0.02; done";
  const pid_t launcher = ::fork();
  if (launcher == 0) {
    ::dup2(console[1], STDOUT_FILENO);
    ::close(console[0]);
    ::close(console[1]);
    try {
      launch(make_launch_plan(workers(1), {}), "/bin/sh", {"sh", "-c", script});
    } catch (const Error& e) {
      ::_exit(static_cast<int>(e.code()));
    }
    ::_exit(0);
  }
  ::close(console[1]);
  wait_for(dir / "pid");
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  ::kill(launcher, SIGTERM);
  wait_for(dir / "saved");
  EXPECT_EQ(read_file(dir / "saved"), "saved\n");
  // All comes when it is read again.
  const std::string out = testing::read_to_end(console[0]);
  ::close(console[0]);
  int status = 0;
  ::waitpid(launcher, &status, 0);
  EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 75);
  std::string expected;
  for (int i = 1000; i < 1100; ++i) {
    expected += "[rank0]: " + std::string(996, '0') + std::to_string(i) + "\n";
  }
  EXPECT_EQ(out, expected);
}

TEST(LauncherDist, AStoppedRankIsWokenUpForASignal) {
  const TempDir dir;
  const std::string script = "trap 'exit 75' TERM; echo $$ >" + (dir / "pid") +
                             "; kill -STOP $$; while :; do sleep 0.02; done";
  const Launched got = run(workers(1), script, [&](pid_t launcher) {
    wait_for(dir / "pid");
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    ::kill(launcher, SIGTERM);
    const pid_t worker = std::stoi(read_file(dir / "pid"));
    for (int i = 0; i < 250 && alive(worker); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    ::kill(worker, SIGKILL);
  });
  EXPECT_EQ(got.code, 75);
}

TEST(LauncherDist, NoOrphansSurviveTheLauncher) {
  const TempDir dir;
  const Launched got =
      run(workers(1), "echo $$ >" + (dir / "pid") + "; exec sleep 60", [&](pid_t launcher) {
        wait_for(dir / "pid");
        ::kill(launcher, SIGKILL);
      });
  EXPECT_EQ(got.code, 128 + SIGKILL);
  const pid_t worker = std::stoi(read_file(dir / "pid"));
  for (int i = 0; i < 100 && alive(worker); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_FALSE(alive(worker));
}

TEST(LauncherDist, WhatAWorkerLeftBehindIsEnded) {
  const TempDir dir;
  const Launched got = run(workers(1), "sleep 60 & echo $! >" + (dir / "pid"));
  EXPECT_EQ(got.code, 0);
  EXPECT_LT(got.seconds, 5.0);  // although the sleeper held the pipe open
  const pid_t sleeper = std::stoi(read_file(dir / "pid"));
  for (int i = 0; i < 100 && alive(sleeper); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_FALSE(alive(sleeper));
}

TEST(LauncherDist, TheWholeGroupIsStartedAgain) {
  LaunchOptions options = workers(2);
  options.max_restarts = 2;
  const Launched got = run(options,
                           "echo try $TORCHELASTIC_RESTART_COUNT of $TORCHELASTIC_MAX_RESTARTS; "
                           "[ $TORCHELASTIC_RESTART_COUNT = 2 ] || { sleep 0.1; exit 70; }");
  EXPECT_EQ(got.code, 0) << got.message;
  for (const char* line : {"[rank0]: try 0 of 2", "[rank1]: try 1 of 2", "[rank0]: try 2 of 2",
                           "failed first, with exit code 70", "restart 2 of 2"}) {
    expect_in(line, got.out);
  }
  const Launched never = run(options, "exit 70");
  EXPECT_EQ(never.code, 70);
}

TEST(LauncherDist, WhatWouldFailAgainIsNotStartedAgain) {
  LaunchOptions options = workers(1);
  options.max_restarts = 3;
  for (const int code : {2, 3, 4, 6}) {
    const Launched got = run(options, "echo once; exit " + std::to_string(code));
    EXPECT_EQ(got.code, code);
    EXPECT_EQ(got.out.find("once"), got.out.rfind("once")) << got.out;
    expect_in("[rank0]: once\n", got.out);
  }
}

TEST(LauncherDist, OutputGoesToFiles) {
  const TempDir dir;
  LaunchOptions options = workers(2);
  options.log_dir = dir / "logs";
  options.rdzv_id = "job";
  options.redirects = "0:3";
  options.tee = "1:1";
  const Launched got = run(options, "echo out $RANK; echo err $RANK >&2");
  EXPECT_EQ(got.code, 0) << got.message;
  EXPECT_EQ(got.out.find("[rank0]"), std::string::npos) << got.out;
  expect_in("[rank1]: out 1\n", got.out);
  expect_in("[rank1]: err 1\n", got.out);
  const std::string run_logs = std::filesystem::directory_iterator(dir / "logs")->path().string();
  expect_in("/job_", run_logs);
  EXPECT_EQ(read_file(run_logs + "/attempt_0/0/stdout.log"), "out 0\n");
  EXPECT_EQ(read_file(run_logs + "/attempt_0/0/stderr.log"), "err 0\n");
  EXPECT_EQ(read_file(run_logs + "/attempt_0/1/stdout.log"), "out 1\n");
  EXPECT_FALSE(std::filesystem::exists(run_logs + "/attempt_0/1/stderr.log"));

  options.log_dir = dir.write("in-the-way", "x");
  const Launched refused = run(options, "exit 0");
  EXPECT_EQ(refused.code, 2);
  expect_in("choose another --log-dir", refused.message);
}

TEST(LauncherDist, WorkersReadNothingAndKeepTheEnvironment) {
  ::setenv("CAROUSEL_LAUNCHER_TEST", "kept", 1);
  ::unsetenv("OMP_NUM_THREADS");
  const Launched got =
      run(workers(2), "cat; echo $CAROUSEL_LAUNCHER_TEST $WORLD_SIZE $OMP_NUM_THREADS");
  ::unsetenv("CAROUSEL_LAUNCHER_TEST");
  expect_in("[rank1]: kept 2 2\n", got.out);  // 4 cores for 2
}

TEST(LauncherDist, AProgramThatCannotStartIsNamed) {
  const auto plan = make_launch_plan({.standalone = true}, {});
  try {
    launch(plan, "/nowhere/program", {"program"});
    FAIL();
  } catch (const UsageError& e) {
    expect_in("cannot start '/nowhere/program': No such file or directory", e.what());
  }
}

}  // namespace
}  // namespace carousel
