#include "core/base/file.h"

#include <gtest/gtest.h>

#include <utility>

#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"

namespace carousel {
namespace {

using testing::expect_error;
using testing::TempDir;

TEST(MappedFile, ShowsTheBytesOfAFile) {
  const TempDir dir;
  MappedFile file(dir.write("a.txt", "seven b"), ExitCode::kData);
  EXPECT_EQ(file.text(), "seven b");
  const MappedFile moved(std::move(file));
  EXPECT_EQ(moved.text(), "seven b");
  EXPECT_TRUE(MappedFile(dir.write("empty", ""), ExitCode::kData).bytes().empty());
}

TEST(MappedFile, RefusesWhatIsNoFile) {
  const TempDir dir;
  expect_error<DataError>([&] { MappedFile(dir / "missing.txt", ExitCode::kData); },
                          {"missing.txt", "No such file"});
  expect_error<CheckpointError>([&] { MappedFile(dir.path(), ExitCode::kCheckpoint); },
                                {dir.path(), "not a regular file"});
}

}  // namespace
}  // namespace carousel
