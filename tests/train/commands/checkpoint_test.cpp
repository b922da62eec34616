#include <gtest/gtest.h>

#include "tests/support/program.h"
#include "tests/train/checkpoint/support.h"
#include "train/checkpoint/inspect.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using testing::marked_contents;
using testing::Outcome;
using testing::run_program;
using testing::TempDir;

class CheckpointCommand : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const int step : {1, 2})
      save_checkpoint(run_ / "checkpoints", step, marked_contents(step));
  }
  void flip_a_byte_of(int step) const {
    const std::string name = "run/checkpoints/" + checkpoint_name(step) + "/model.safetensors";
    std::string bytes = testing::read_file(dir_ / name);
    bytes.back() ^= 1;
    dir_.write(name, bytes);
  }
  static Outcome inspect(const fs::path& path, const std::string& options = "") {
    return run_program(fmt::format("checkpoint '{}' {}", path.string(), options));
  }
  static void expect_refused(const fs::path& path, int code, const std::string& why) {
    const Outcome outcome = inspect(path);
    EXPECT_EQ(outcome.code, code) << path << outcome.out << outcome.err;
    EXPECT_TRUE(outcome.err.starts_with("error: '" + path.string() + "' ")) << outcome.err;
    EXPECT_NE(outcome.err.find(why), std::string::npos) << outcome.err;
  }

  TempDir dir_;
  fs::path run_ = dir_ / "run";
};

TEST_F(CheckpointCommand, ListsThoseOfARun) {
  flip_a_byte_of(2);
  const Outcome outcome = inspect(run_);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  const auto reports = inspect_checkpoints(run_ / "checkpoints");
  EXPECT_EQ(reports.size(), 2u);
  EXPECT_EQ(outcome.out, to_string(reports));
  EXPECT_EQ(inspect(run_ / "").out, outcome.out);
}

TEST_F(CheckpointCommand, NoVerifySkipsTheHashes) {
  flip_a_byte_of(1);
  flip_a_byte_of(2);
  EXPECT_EQ(inspect(run_).code, 4);
  const Outcome outcome = inspect(run_, "--no-verify");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out,
            to_string(inspect_checkpoints(run_ / "checkpoints", {.read_contents = false})));
}

TEST_F(CheckpointCommand, TakesOneCheckpoint) {
  flip_a_byte_of(2);
  fs::rename(run_ / "checkpoints/step-00000001", dir_ / "copy");
  for (const fs::path path : {dir_ / "copy", dir_ / "copy/", dir_ / "copy/."}) {
    const Outcome good = inspect(path);
    EXPECT_EQ(good.code, 0) << good.err;
    EXPECT_EQ(good.out, to_string({*inspect_checkpoint(dir_ / "copy")}));
    EXPECT_TRUE(good.out.ends_with("  good\n")) << good.out;
  }
  const fs::path bad = run_ / "checkpoints/step-00000002";
  expect_refused(bad, 4, "is no good checkpoint; restore one");
  EXPECT_EQ(inspect(bad).out, to_string({*inspect_checkpoint(bad)}));
  fs::remove(bad / "manifest.json");
  expect_refused(bad, 4, "is no good checkpoint; restore one");
}

TEST_F(CheckpointCommand, ARunWithoutAGoodOneExitsWithFour) {
  flip_a_byte_of(2);
  fs::remove(run_ / "checkpoints/step-00000001/trainer.json");
  expect_refused(run_, 4, "holds no good checkpoint; restore one");
  const std::string table = inspect(run_).out;
  EXPECT_NE(table.find("trainer.json: No such file"), std::string::npos) << table;
  const std::string both = dir_ / "both";
  EXPECT_EQ(inspect(run_, fmt::format(">'{}' 2>&1; exit $?; #", both)).code, 4);
  EXPECT_TRUE(testing::read_file(both).starts_with(table + "error: ")) << testing::read_file(both);
  fs::remove_all(run_ / "checkpoints");
  fs::create_directory(run_ / "checkpoints");
  expect_refused(run_, 4, "holds no checkpoint; training saves one every checkpoint.every");
  dir_.write("fresh/config.yaml", "");
  expect_refused(dir_ / "fresh", 4, "holds no checkpoint");
}

TEST_F(CheckpointCommand, WhatIsNeitherExitsWithTwo) {
  expect_refused(dir_ / "none", 2, "No such file or directory; give a run directory");
  expect_refused(dir_.write("step-00000001", ""), 2, "is not a directory; give a run directory");
  expect_refused(dir_.path(), 2, "holds no run and no checkpoint; give a run directory");
  EXPECT_EQ(run_program("checkpoint").code, 2);
}

}  // namespace
}  // namespace carousel
