#include "train/config/config.h"

#include <gtest/gtest.h>

#include "tests/support/program.h"

namespace carousel {
namespace {

using testing::Outcome;
using testing::run_program;
using testing::TempDir;

const std::string kYaml =
    "name: tiny\n"
    "steps: 10\n"
    "model: {family: xlstm_large, embedding_dim: 64, num_heads: 2, num_blocks: 1}\n"
    "data: {train: corpus.txt}\n";

TEST(ConfigCommand, PrintsTheResolvedConfiguration) {
  const TempDir dir;
  const std::string path = dir.write("run.yaml", kYaml);
  const Outcome outcome =
      run_program("config " + path + " optim.lr=3e-4 'data.train=[a.txt, b.txt]'");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out,
            to_yaml(load_config(path, {"optim.lr=3e-4", "data.train=[a.txt, b.txt]"})));
}

TEST(ConfigCommand, ExplainsOnRequest) {
  const TempDir dir;
  const std::string path = dir.write("run.yaml", kYaml);
  const Outcome outcome = run_program("config --explain " + path + " optim.lr=3e-4");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, explain(load_config_with_origins(path, {"optim.lr=3e-4"})));
}

TEST(ConfigCommand, ListsTheKeys) {
  EXPECT_EQ(run_program("config --keys").out, describe_keys());
  const Outcome nothing = run_program("config");
  EXPECT_EQ(nothing.code, 2);
  EXPECT_EQ(nothing.err, "error: config: name a YAML file, or ask for all keys with --keys\n");
}

TEST(ConfigCommand, PrintsOneLineForEachError) {
  const TempDir dir;
  const std::string path = dir.write("run.yaml", kYaml + "optim: {weigth_decay: 1}\nsede: 1\n");
  const Outcome outcome = run_program("config " + path);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(outcome.err,
            "error: " + path +
                ":5:9: unknown key 'weigth_decay' in optim; did you mean 'weight_decay'?\n"
                "error: " +
                path + ":6:1: unknown key 'sede' at the top level; did you mean 'seed'?\n");
}

TEST(ConfigCommand, AFullDiskBehindTheOutputIsAnError) {
  const TempDir dir;
  const std::string path = dir.write("run.yaml", kYaml);
  for (const std::string& arguments : {std::string("config --keys"), "config " + path}) {
    const Outcome outcome = run_program(arguments + " >/dev/full; exit $?; #");
    EXPECT_EQ(outcome.code, 2) << arguments;
  }
}

}  // namespace
}  // namespace carousel
