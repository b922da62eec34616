// The program from the outside: exit codes and what it says on stderr.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/devices.h"
#include "tests/support/program.h"
#include "train/checkpoint/checkpoint.h"
#include "train/environment.h"
#include "train/peak_flops.h"

namespace carousel {
namespace {

using testing::Outcome;
using testing::run_program;
using testing::TempDir;

class ProgramTest : public ::testing::Test {
 protected:
  std::string config(const std::string& train, const std::string& more = "") {
    return dir_.write("run.yaml", "name: t\nsteps: 3\noutput_dir: " + (dir_ / "run") +
                                      "\nmodel: {family: xlstm_large, embedding_dim: 32, "
                                      "num_heads: 2, num_blocks: 1}\n"
                                      "data: {train: " +
                                      train + ", tokenizer: char, seq_len: 16, batch_size: 2}\n" +
                                      more);
  }
  std::string text() {
    std::string t;
    for (int i = 0; i < 100; ++i) t += "some words to learn from, again and again.\n";
    return dir_.write("text.txt", t);
  }
  void expect(const std::string& arguments, int code, const std::string& part) {
    const Outcome outcome = run_program(arguments);
    const std::string output = outcome.out + outcome.err;
    EXPECT_EQ(outcome.code, code) << output;
    EXPECT_NE(output.find(part), std::string::npos) << output;
  }

  TempDir dir_;
};

TEST_F(ProgramTest, TrainsEvaluatesAndGenerates) {
  expect("train " + config(text(), "device: cpu\n"), 0, "step 3/3");
  expect("generate " + (dir_ / "run") + " --device cpu -p some -n 5 --seed 1", 0, "some");
  expect("eval " + (dir_ / "run") + " --device cpu --data " + text(), 0, "perplexity");
  expect("train " + config(text(), "device: cpu\n"), 0, "is done already");
}

TEST_F(ProgramTest, ACheckpointMayBeNamedInAnyWay) {
  expect("train " + config(text(), "device: cpu\n"), 0, "step 3/3");
  const std::string steps = dir_ / "run/checkpoints";
  const std::string more = " --device cpu -p some -n 2";
  for (const char* name : {"step-00000003", "./step-00000003/", "../checkpoints/step-00000003//"}) {
    expect(fmt::format("generate '{}/{}'{}", steps, name, more), 0, "some");
  }
  const auto here = std::filesystem::current_path();
  std::filesystem::current_path(steps);
  expect("generate step-00000003" + more, 0, "some");
  std::filesystem::current_path("step-00000003");
  expect("generate ." + more, 0, "some");
  std::filesystem::current_path(here);
}

TEST_F(ProgramTest, ACheckpointWithoutATokenizerIsNamed) {
  expect("train " + config(text(), "device: cpu\n"), 0, "step 3/3");
  CheckpointContents contents;
  contents.trainer = {{"step", 4}};
  save_checkpoint(dir_ / "run/checkpoints", 4, contents);
  expect(fmt::format("generate '{}'", dir_ / "run"), 4, "holds no tokenizer.json");
}

TEST_F(ProgramTest, AFullDiskBehindGeneratedTextIsAnError) {
  expect("train " + config(text(), "device: cpu\n"), 0, "step 3/3");
  expect(
      fmt::format("generate '{}' --device cpu -p some -n 5 >/dev/full; exit $?; #", dir_ / "run"),
      2, "");
}

TEST_F(ProgramTest, ATaskIsEvaluatedOnItsOwnSequences) {
  const std::string run = dir_ / "run";
  expect("train " CAROUSEL_CONFIGS
         "/parity_short.yaml device=cpu steps=2 schedule.warmup=0 eval.batches=2 "
         "output_dir=" +
             run,
         0, "step 2/2");
  const auto targets = [&](const std::string& more) {
    const Outcome outcome = run_program("eval " + run + " --device cpu --json" + more);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return nlohmann::json::parse(outcome.out).at("targets").get<int>();
  };
  EXPECT_EQ(targets(""), targets(" --batches 2"));
  EXPECT_GT(targets(" --batches 3"), targets(""));
  expect("eval " + run + " --data " + text(), 2, "--data: the run's task, parity");
  expect("eval " + run + " --seq-len 9", 2, "--seq-len: the run's task, parity");
}

TEST_F(ProgramTest, AModelRunsInAnotherPrecisionThanItsTrainings) {
  expect("train " + config(text(), "device: cpu\n"), 0, "step 3/3");
  const auto loss = [&](const std::string& precision) {
    const Outcome outcome = run_program(fmt::format("eval '{}' --device cpu --data '{}' --json {}",
                                                    dir_ / "run", text(), precision));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return nlohmann::json::parse(outcome.out).at("loss").get<double>();
  };
  EXPECT_EQ(loss("--precision f32"), loss(""));
  EXPECT_NE(loss("--precision bf16"), loss(""));
  EXPECT_NEAR(loss("--precision bf16"), loss(""), 0.02);
  expect(fmt::format("generate '{}' --device cpu --precision bf16 -p some -n 5", dir_ / "run"), 0,
         "some");
  expect(fmt::format("eval '{}' --precision f16", dir_ / "run"), 2, "--precision");
}

// Wide enough for OpenBLAS to use threads; those that OpenMP withholds it would wait for.
TEST_F(ProgramTest, TrainsOnFewerThreadsThanAskedFor) {
  const std::string command =
      "train " + config(text(), "device: cpu\n") + " model.embedding_dim=192 data.batch_size=4";
  for (const char* variables :
       {"OMP_NUM_THREADS=2 OMP_THREAD_LIMIT=1", "OMP_NUM_THREADS=4 OMP_DYNAMIC=true"}) {
    std::filesystem::remove_all(dir_ / "run");
    const Outcome outcome = run_program(command, std::string(variables) + " timeout -s KILL 100");
    EXPECT_EQ(outcome.code, 0) << variables << "\n" << outcome.err;
  }
}

TEST_F(ProgramTest, UsageErrorsExitWithTwo) {
  expect("", 2, "error: A subcommand is required; see carousel --help\n");
  expect("trian", 2, "error: unknown command 'trian'; did you mean 'train'?\n");
  expect("frobnicate", 2, "error: unknown command 'frobnicate'; see carousel --help\n");
  expect("train", 2, "error: config is required; see carousel train --help\n");
  expect("config --explian", 2, "not expected: --explian; see carousel config --help\n");
  expect("train " + (dir_ / "missing.yaml"), 2, "missing.yaml");
  expect("train " + config(text(), "optim: {weigth_decay: 0.1}\n"), 2,
         "did you mean 'weight_decay'?");
  expect("generate " + (dir_ / "nowhere"), 4, "holds no good checkpoint");
}

TEST_F(ProgramTest, TrainingRefusesToValidateOnItsOwnFiles) {
  expect("train " + config(text()) + " data.val=" + text(), 2, "is a file of data.train too");
}

TEST_F(ProgramTest, DataErrorsExitWithThree) {
  expect("train " + config(dir_ / "missing.txt"), 3, "missing.txt");
  expect("train " + config(dir_.write("empty.txt", "")), 3, "empty");
  expect("train " + config(dir_.write("short.txt", "too short")), 3, "short.txt");
  expect("train " + config(dir_.write("binary.txt", std::string("ab\xff\xfe\0cd", 7))), 3,
         "binary.txt");
}

TEST_F(ProgramTest, WithoutAGpuDeviceCudaIsRefusedAndAutoSaysWhatItTakes) {
  if (has_backend(DeviceType::kCuda)) GTEST_SKIP() << "this machine has a GPU";
  expect("train " + config(text(), "device: cuda\n"), 2, "set device: cpu or auto");
  expect("train " + config(text(), "device: auto\n"), 0, "device auto: using the CPU: ");
}

using CudaProgramTest = ProgramTest;

TEST_F(CudaProgramTest, ABatchTooLargeForTheGpuExitsWithFive) {
  CAROUSEL_REQUIRE_CUDA();
  const std::string huge = " model.embedding_dim=2048 data.seq_len=2048 data.batch_size=16384";
  const Outcome outcome = run_program("train " + config(text(), "device: cuda\n") + huge);
  EXPECT_EQ(outcome.code, 5) << outcome.err;
  for (const char* part : {"no memory for a tensor f32 (", "activations", "micro_batch_size"}) {
    EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
  }
}

TEST_F(CudaProgramTest, TrainingTellsMemoryAndSpeed) {
  CAROUSEL_REQUIRE_CUDA();
  expect("train " + config(text(), "device: cuda\nlogging: {every: 1}\n"), 0, "step 3/3");
  const std::string metrics = testing::read_file(dir_ / "run/metrics.jsonl");
  const bool known =
      peak_flops(backend_for(DeviceType::kCuda).name(testing::kGpu), DType::kF32).has_value();
  EXPECT_EQ(metrics.find("\"mfu\"") != std::string::npos, known) << metrics;
}

TEST_F(ProgramTest, HelpAndVersionExitWithZero) {
  expect("--version", 0, version_text() + "\n");
  expect("--help", 0, "Exit codes");
  for (const std::string command :
       {"train", "run", "generate", "eval", "plan", "checkpoint", "config", "doctor"}) {
    expect("--help", 0, "\n  " + command + " ");
    expect(command + " --help", 0, "Example: carousel " + command);
  }
}

}  // namespace
}  // namespace carousel
