// The program from the outside: exit codes and what it says on stderr.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <string>

#include "tests/support/temp_dir.h"

namespace {

using carousel::testing::TempDir;

struct Outcome {
  int code = -1;
  std::string output;  // stdout and stderr together
};

Outcome carousel_program(const std::string& arguments) {
  const std::string command =
      "OMP_NUM_THREADS=1 " + std::string(CAROUSEL_PROGRAM) + " " + arguments + " 2>&1";
  std::FILE* pipe = ::popen(command.c_str(), "r");
  Outcome outcome;
  std::array<char, 4096> buffer{};
  while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) outcome.output += buffer.data();
  const int status = ::pclose(pipe);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

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
    const Outcome outcome = carousel_program(arguments);
    EXPECT_EQ(outcome.code, code) << outcome.output;
    EXPECT_NE(outcome.output.find(part), std::string::npos) << outcome.output;
  }

  TempDir dir_;
};

TEST_F(ProgramTest, TrainsEvaluatesAndGenerates) {
  expect("train " + config(text(), "device: cpu\n"), 0, "step 3/3");
  expect("generate " + (dir_ / "run") + " --device cpu -p some -n 5 --seed 1", 0, "some");
  expect("eval " + (dir_ / "run") + " --device cpu --data " + text(), 0, "perplexity");
  expect("train " + config(text(), "device: cpu\n"), 0, "is done already");
}

TEST_F(ProgramTest, UsageErrorsExitWithTwo) {
  expect("", 2, "A subcommand");
  expect("trian", 2, "did you mean 'train'?");
  expect("train", 2, "config");
  expect("train " + (dir_ / "missing.yaml"), 2, "missing.yaml");
  expect("train " + config(text(), "optim: {weigth_decay: 0.1}\n"), 2,
         "did you mean 'weight_decay'?");
  expect("generate " + (dir_ / "nowhere"), 4, "holds no good checkpoint");
}

TEST_F(ProgramTest, DataErrorsExitWithThree) {
  expect("train " + config(dir_ / "missing.txt"), 3, "missing.txt");
  expect("train " + config(dir_.write("empty.txt", "")), 3, "empty");
  expect("train " + config(dir_.write("short.txt", "too short")), 3, "short.txt");
  expect("train " + config(dir_.write("binary.txt", std::string("ab\xff\xfe\0cd", 7))), 3,
         "binary.txt");
}

TEST_F(ProgramTest, HelpAndVersionExitWithZero) {
  expect("--version", 0, "0.1");
  expect("--help", 0, "Exit codes");
  for (const char* command : {"train", "generate", "eval", "plan"}) {
    expect(std::string(command) + " --help", 0, "Example");
  }
}

}  // namespace
