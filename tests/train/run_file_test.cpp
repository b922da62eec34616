#include "train/run_file.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"

namespace carousel {
namespace {

using testing::expect_error;
using testing::read_file;
using testing::TempDir;

TEST(RunFile, IsWrittenWhole) {
  const TempDir dir;
  const std::string path = dir.write("config.yaml", "what was there before, and longer");
  write_run_file(path, "name: a\n");
  EXPECT_EQ(read_file(path), "name: a\n");
  expect_error<UsageError>(
      [] { write_run_file("/nowhere/config.yaml", "x"); },
      {"/nowhere/config.yaml", "No such file", "choose a writable output_dir"});
}

TEST(GrowingFile, IsSeenToGrow) {
  const TempDir dir;
  const std::string path = dir.write("log", "before\n");
  GrowingFile file(path);
  EXPECT_EQ(read_file(path), "before\n");
  file.write(std::string_view("a\0b\n", 4));
  EXPECT_EQ(read_file(path), std::string("before\na\0b\n", 11));
  file.write("c");
  EXPECT_EQ(read_file(path), std::string("before\na\0b\nc", 12));
}

TEST(GrowingFile, FailuresAreNamed) {
  expect_error<UsageError>([] { GrowingFile("/nowhere/log"); },
                           {"/nowhere/log", "No such file", "choose a writable output_dir"});
  expect_error<UsageError>([] { GrowingFile("/dev/full").write("x"); },
                           {"/dev/full", "No space left", "make room"});
}

}  // namespace
}  // namespace carousel
