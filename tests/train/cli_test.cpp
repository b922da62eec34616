// The program as its users meet it: output, messages and exit codes.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <string>

#include "tests/support/temp_dir.h"
#include "train/config/config.h"
#include "train/environment.h"

namespace carousel {
namespace {

using testing::read_file;
using testing::TempDir;

struct Outcome {
  int code = -1;
  std::string out;
  std::string err;
};

/// Runs `carousel arguments` in the shell.
Outcome carousel(const std::string& arguments) {
  const TempDir dir;
  const std::string command = std::string("'" CAROUSEL_PROGRAM "' ") + arguments + " >'" +
                              (dir / "out") + "' 2>'" + (dir / "err") + "'";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(dir / "out"),
          read_file(dir / "err")};
}

const std::string kYaml =
    "name: tiny\n"
    "steps: 10\n"
    "model: {family: xlstm_large, embedding_dim: 64, num_heads: 2, num_blocks: 1}\n"
    "data: {train: corpus.txt}\n";

TEST(Cli, VersionIsPrinted) {
  const Outcome outcome = carousel("--version");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out, version_text() + "\n");
  EXPECT_EQ(outcome.err, "");
}

TEST(Cli, HelpListsTheCommandsAndEachHasItsOwnWithAnExample) {
  const Outcome help = carousel("--help");
  EXPECT_EQ(help.code, 0);
  for (const char* name : {"train", "generate", "eval", "plan", "config", "doctor"}) {
    EXPECT_NE(help.out.find(std::string("\n  ") + name + " "), std::string::npos) << help.out;
    const Outcome own = carousel(std::string(name) + " --help");
    EXPECT_EQ(own.code, 0);
    EXPECT_NE(own.out.find(std::string("Example: carousel ") + name), std::string::npos) << own.out;
  }
}

TEST(Cli, MistakesOnTheCommandLineEndWithCode2AndALineThatHelps) {
  const auto message = [](const std::string& arguments) {
    const Outcome outcome = carousel(arguments);
    EXPECT_EQ(outcome.code, 2) << arguments;
    EXPECT_EQ(outcome.out, "");
    return outcome.err;
  };
  EXPECT_EQ(message("trian x.yaml"), "error: unknown command 'trian'; did you mean 'train'?\n");
  EXPECT_EQ(message("frobnicate"), "error: unknown command 'frobnicate'; see carousel --help\n");
  EXPECT_EQ(message(""), "error: A subcommand is required; see carousel --help\n");
  EXPECT_EQ(message("train"), "error: config is required; see carousel train --help\n");
  EXPECT_EQ(message("config --explian"),
            "error: The following argument was not expected: --explian; see carousel config "
            "--help\n");
  EXPECT_EQ(message("config"),
            "error: config: name a YAML file, or ask for all keys with --keys\n");
}

TEST(Cli, ConfigPrintsTheResolvedConfiguration) {
  const TempDir dir;
  const std::string path = dir.write("run.yaml", kYaml);
  const Outcome outcome = carousel("config " + path + " optim.lr=3e-4 'data.train=[a.txt, b.txt]'");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out,
            to_yaml(load_config(path, {"optim.lr=3e-4", "data.train=[a.txt, b.txt]"})));
  const Outcome explained = carousel("config --explain " + path + " optim.lr=3e-4");
  EXPECT_EQ(explained.code, 0);
  EXPECT_NE(explained.out.find("[override 'optim.lr=3e-4']"), std::string::npos) << explained.out;
  EXPECT_EQ(carousel("config --keys").out, describe_keys());
}

TEST(Cli, EachErrorOfAConfigurationIsALine) {
  const TempDir dir;
  const std::string path = dir.write("run.yaml", kYaml + "optim: {weigth_decay: 1}\nsede: 1\n");
  const Outcome outcome = carousel("config " + path);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(outcome.err,
            "error: " + path +
                ":5:9: unknown key 'weigth_decay' in optim; did you mean 'weight_decay'?\n"
                "error: " +
                path + ":6:1: unknown key 'sede' at the top level; did you mean 'seed'?\n");
}

TEST(Cli, MissingDataEndsWithCode3) {
  const TempDir dir;
  const std::string path = dir.write("run.yaml", kYaml);
  const Outcome outcome =
      carousel("train " + path + " output_dir=" + (dir / "run") + " data.train=" + (dir / "none"));
  EXPECT_EQ(outcome.code, 3) << outcome.err;
  EXPECT_NE(outcome.err.find("\nerror: "), std::string::npos) << outcome.err;
}

TEST(Cli, DoctorNamesWhatWorksHere) {
  const Outcome outcome = carousel("doctor");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  for (const char* name : {"version", "build", "cpu", "simd", "threads", "blas", "sgemm", "memory",
                           "disk", "cuda", "libraries"}) {
    EXPECT_NE(("\n" + outcome.out).find(std::string("\n") + name + " "), std::string::npos) << name;
  }
  EXPECT_NE(outcome.out.find(" GFLOP/s"), std::string::npos);
}

TEST(Cli, AFullDiskBehindTheOutputIsAnError) {
  const Outcome outcome = carousel("config --keys >/dev/full; exit $?");
  EXPECT_NE(outcome.code, 0);
}

}  // namespace
}  // namespace carousel
