#include "train/checkpoint/directory.h"

#include <gtest/gtest.h>

#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"
#include "tests/train/checkpoint/support.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using testing::entries;
using testing::mark_of;
using testing::marked_contents;
using testing::TempDir;

TEST(CheckpointDirectory, ListsOnlyNamesOfCheckpoints) {
  const TempDir dir;
  for (const char* name : {"step-00000002", "step-00000010", "step-123456789", "step-2",
                           "step-000000002", "step--0000001", "step-0000000x", "step-",
                           "step-99999999999999999999", ".step-00000003.tmp"}) {
    fs::create_directory(dir / name);
  }
  std::vector<std::int64_t> steps;
  for (const FoundCheckpoint& found : list_checkpoints(dir.path())) steps.push_back(found.step);
  EXPECT_EQ(steps, (std::vector<std::int64_t>{123456789, 10, 2}));
}

TEST(CheckpointDirectory, CleaningTouchesOnlyLeftoversOfOurs) {
  const TempDir dir;
  save_checkpoint(dir.path(), 1, marked_contents(1));
  const std::vector<std::string> foreign{".step-00000005.tmp2", ".step-5.tmp", ".tmp", "notes.tmp",
                                         "step-00000005.tmp"};
  for (const std::string& name : foreign) dir.write(name, "");
  fs::create_directory(dir / ".step-00000005.tmp");
  dir.write(".step-00000005.tmp/model.safetensors", "half a");
  dir.write(".step-00000006.tmp", "even as a file");
  std::vector<std::string> expected = foreign;
  expected.push_back("step-00000001");
  std::sort(expected.begin(), expected.end());

  EXPECT_EQ(newest_good_checkpoint(dir.path())->step(), 1);
  EXPECT_EQ(entries(dir.path()), expected);
}

TEST(CheckpointDirectory, AnInterruptedReplacementIsUndone) {
  const TempDir dir;
  save_checkpoint(dir.path(), 3, marked_contents(1));
  fs::rename(dir / "step-00000003", dir / ".step-00000003.old");
  fs::create_directory(dir / ".step-00000003.tmp");
  EXPECT_EQ(mark_of(*newest_good_checkpoint(dir.path())), 1);
  EXPECT_EQ(entries(dir.path()), std::vector<std::string>{"step-00000003"});
}

TEST(CheckpointDirectory, ACompletedReplacementDropsTheOldOne) {
  const TempDir dir;
  save_checkpoint(dir / "other", 3, marked_contents(1));
  save_checkpoint(dir.path(), 3, marked_contents(2));
  fs::rename(dir / "other/step-00000003", dir / ".step-00000003.old");
  save_checkpoint(dir.path(), 4, marked_contents(4));
  EXPECT_EQ(entries(dir.path()),
            (std::vector<std::string>{"other", "step-00000003", "step-00000004"}));
  EXPECT_EQ(mark_of(Checkpoint::open(dir / "step-00000003")), 2);
}

TEST(CheckpointDirectory, LoadingLeavesARunningSaveAlone) {
  const TempDir dir;
  save_checkpoint(dir.path(), 1, marked_contents(1));
  fs::create_directory(temporary_path(dir.path(), 2));
  {
    const DirectoryLock saver(dir.path(), DirectoryLock::Mode::kWait);
    EXPECT_FALSE(DirectoryLock(dir.path(), DirectoryLock::Mode::kTry).held());
    EXPECT_EQ(newest_good_checkpoint(dir.path())->step(), 1);
    EXPECT_TRUE(fs::exists(temporary_path(dir.path(), 2)));
  }
  EXPECT_EQ(newest_good_checkpoint(dir.path())->step(), 1);
  EXPECT_FALSE(fs::exists(temporary_path(dir.path(), 2)));
}

TEST(CheckpointDirectory, CanBeListedAsCleanedWithoutCleaning) {
  const TempDir dir;
  for (const char* name : {"step-00000002", "step-00000009", ".step-00000002.old",
                           ".step-00000005.old", ".step-00000007.tmp", "step-00000004.old"}) {
    fs::create_directory(dir / name);
  }
  const std::vector<std::string> before = entries(dir.path());
  const auto found = list_checkpoints_as_cleaned(dir.path());
  EXPECT_EQ(entries(dir.path()), before);
  std::vector<fs::path> paths;
  for (const FoundCheckpoint& f : found) paths.push_back(f.path);
  EXPECT_EQ(paths, (std::vector<fs::path>{dir / "step-00000009", dir / ".step-00000005.old",
                                          dir / "step-00000002"}));
  clean_up(dir.path());
  const auto cleaned = list_checkpoints(dir.path());
  EXPECT_TRUE(
      std::ranges::equal(found, cleaned, {}, &FoundCheckpoint::step, &FoundCheckpoint::step));
  EXPECT_TRUE(list_checkpoints_as_cleaned(dir / "none").empty());
}

TEST(CheckpointDirectory, AFailedRenamePutsTheReplacedOneBack) {
  const TempDir dir;
  save_checkpoint(dir.path(), 1, marked_contents(1));
  testing::expect_error<CheckpointError>([&] { publish(dir.path(), 1); },
                                         {".step-00000001.tmp", "No such file"});
  EXPECT_EQ(mark_of(Checkpoint::open(dir / "step-00000001")), 1);
  EXPECT_EQ(entries(dir.path()), std::vector<std::string>{"step-00000001"});
}

}  // namespace
}  // namespace carousel
