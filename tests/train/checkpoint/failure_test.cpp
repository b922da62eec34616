// Saving where it cannot succeed, and dying on the way.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <thread>

#include "core/base/log.h"
#include "core/base/philox.h"
#include "tests/support/child.h"
#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"
#include "tests/train/checkpoint/support.h"
#include "train/checkpoint/background_save.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using testing::entries;
using testing::in_child;
using testing::mark_of;
using testing::marked_contents;
using testing::message_of;
using testing::TempDir;

constexpr const char* kCannotMount = "cannot mount here: ";

void write_id_map(const char* path, unsigned id) { std::ofstream(path) << "0 " << id << " 1"; }

// Puts the calling (single-threaded) process into a mount namespace of its own, without privileges
// if need be, and mounts a small file system on `path`. Throws where that is not allowed.
void mount_tmpfs(const fs::path& path, const std::string& size) {
  const unsigned user = ::getuid();
  const unsigned group = ::getgid();
  if (::unshare(CLONE_NEWNS) != 0) {
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
      throw std::runtime_error(std::string(kCannotMount) + std::strerror(errno));
    }
    std::ofstream("/proc/self/setgroups") << "deny";
    write_id_map("/proc/self/uid_map", user);
    write_id_map("/proc/self/gid_map", group);
  }
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount("tmpfs", path.c_str(), "tmpfs", 0, ("size=" + size).c_str()) != 0) {
    throw std::runtime_error(std::string(kCannotMount) + std::strerror(errno));
  }
}

// Saves step 2 in a directory where that fails, and says what the error was; then checks that step
// 1 is intact and alone.
std::string fail_to_save(const fs::path& directory, const CheckpointContents& contents) {
  const std::string said =
      message_of<CheckpointError>([&] { save_checkpoint(directory, 2, contents); });
  if (entries(directory) != std::vector<std::string>{"step-00000001"}) return "leftovers; " + said;
  const auto newest = newest_good_checkpoint(directory);
  if (!newest || mark_of(*newest) != 1) return "step 1 was harmed; " + said;
  return said;
}

#define EXPECT_SAID(said, text) EXPECT_NE((said).find(text), std::string::npos) << (said)

TEST(CheckpointFailure, AFullDiskLeavesTheEarlierOnesIntact) {
  const TempDir dir;
  const std::string said = in_child([&] {
    mount_tmpfs(dir.path(), "512k");
    save_checkpoint(dir.path(), 1, marked_contents(1));
    const std::string first = fail_to_save(dir.path(), marked_contents(2, 200'000));
    // Replacing step 1 itself by something that does not fit keeps it, too.
    const std::string again = message_of<CheckpointError>(
        [&] { save_checkpoint(dir.path(), 1, marked_contents(3, 200'000)); });
    if (again.empty() || mark_of(*newest_good_checkpoint(dir.path())) != 1) return again + "harm";
    save_checkpoint(dir.path(), 3, marked_contents(3));  // the space was given back
    return first;
  });
  if (said.find(kCannotMount) != std::string::npos) GTEST_SKIP() << said;
  EXPECT_SAID(said, "model.safetensors");
  EXPECT_SAID(said, "No space left on device; free some space there");
  EXPECT_EQ(said.find("harm"), std::string::npos) << said;
  EXPECT_EQ(said.find("leftovers"), std::string::npos) << said;
}

TEST(CheckpointFailure, AReadOnlyDiskCanBeLoadedFrom) {
  const TempDir dir;
  const std::string said = in_child([&] {
    mount_tmpfs(dir.path(), "512k");
    save_checkpoint(dir.path(), 1, marked_contents(1));
    if (::mount("none", dir.path().c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0) {
      throw std::runtime_error(std::string(kCannotMount) + std::strerror(errno));
    }
    return fail_to_save(dir.path(), marked_contents(2));
  });
  if (said.find(kCannotMount) != std::string::npos) GTEST_SKIP() << said;
  EXPECT_SAID(said, "Read-only file system; the file system is read-only");
}

TEST(CheckpointFailure, AThreadThatSavesReportsTheDisksErrors) {
  const TempDir dir;
  const std::string said = in_child([&] {
    mount_tmpfs(dir.path(), "512k");
    save_checkpoint(dir.path(), 1, marked_contents(1));
    const auto in_background = [&](std::int64_t elements) {
      BackgroundSave save;
      save.start(2, [&] { save_checkpoint(dir.path(), 2, marked_contents(2, elements)); });
      return message_of<CheckpointError>([&] { save.finish("the test"); });
    };
    const std::string full = in_background(200'000);
    if (::mount("none", dir.path().c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0) {
      throw std::runtime_error(std::string(kCannotMount) + std::strerror(errno));
    }
    const std::string read_only = in_background(10);
    if (entries(dir.path()) != std::vector<std::string>{"step-00000001"}) return "leftovers" + full;
    if (mark_of(*newest_good_checkpoint(dir.path())) != 1) return "harm" + full;
    return full + read_only;
  });
  if (said.find(kCannotMount) != std::string::npos) GTEST_SKIP() << said;
  EXPECT_SAID(said, "No space left on device; free some space there");
  EXPECT_SAID(said, "Read-only file system; the file system is read-only");
  EXPECT_EQ(said.find("harm"), std::string::npos) << said;
  EXPECT_EQ(said.find("leftovers"), std::string::npos) << said;
}

TEST(CheckpointFailure, AFileSizeLimitCutsWritesShort) {
  const TempDir dir;
  save_checkpoint(dir.path(), 1, marked_contents(1));
  const std::string said = in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100'001, 100'001};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    return fail_to_save(dir.path(), marked_contents(2, 200'000));
  });
  EXPECT_SAID(said, ".step-00000002.tmp/model.safetensors");
  EXPECT_SAID(said, "File too large; raise the limit on file sizes");
}

TEST(CheckpointFailure, MissingPermissionsAreNamed) {
  const TempDir dir;
  fs::create_directory(dir / "checkpoints");
  save_checkpoint(dir / "checkpoints", 1, marked_contents(1));
  ::chmod(dir.path().c_str(), 0755);
  ::chmod((dir / "checkpoints").c_str(), 0555);
  const std::string said = in_child([&]() -> std::string {
    constexpr uid_t kNobody = 65534;
    if (::getuid() == 0 && ::setuid(kNobody) != 0) return "setuid failed";
    return fail_to_save(dir / "checkpoints", marked_contents(2));
  });
  ::chmod((dir / "checkpoints").c_str(), 0755);
  EXPECT_SAID(said, "checkpoints/.step-00000002.tmp': Permission denied; check the owner");
}

TEST(CheckpointFailure, AFileWhereADirectoryShouldBeIsKept) {
  const TempDir dir;
  dir.write("file", "precious");
  const auto save_to = [&](const std::string& name) {
    return message_of<CheckpointError>([&] { save_checkpoint(dir / name, 1, marked_contents(1)); });
  };
  EXPECT_SAID(save_to("file"), "file': Not a directory; a file stands where");
  EXPECT_SAID(save_to("file/checkpoints"), "Not a directory");
  dir.write("checkpoints/step-00000001", "precious");
  EXPECT_SAID(save_to("checkpoints"), "step-00000001': Not a directory");
  EXPECT_EQ(testing::read_file(dir / "file"), "precious");
  EXPECT_EQ(testing::read_file(dir / "checkpoints/step-00000001"), "precious");
  EXPECT_EQ(entries(dir / "checkpoints").size(), 1u);
}

// Temporary directories in memory where there is such a place, for tests that do not depend on what
// has reached a disk.
class InMemory {
 public:
  InMemory() {
    if (const char* value = std::getenv("TMPDIR")) previous_ = value;
    if (::access("/dev/shm", W_OK) == 0) ::setenv("TMPDIR", "/dev/shm", 1);
  }
  ~InMemory() {
    if (previous_) {
      ::setenv("TMPDIR", previous_->c_str(), 1);
    } else {
      ::unsetenv("TMPDIR");
    }
  }
  InMemory(const InMemory&) = delete;
  InMemory& operator=(const InMemory&) = delete;

 private:
  std::optional<std::string> previous_;
};

TEST(CheckpointFailureSlow, DyingAtAnySystemCallLeavesAGoodCheckpoint) {
  const InMemory in_memory;
  int call = 0;
  for (auto fate = testing::Fate::kKilled; fate == testing::Fate::kKilled; ++call) {
    const TempDir dir;
    save_checkpoint(dir.path(), 1, marked_contents(1));
    fate = testing::kill_at_system_call(call, [&] {
      save_checkpoint(dir.path(), 1, marked_contents(2));  // replaces
      save_checkpoint(dir.path(), 2, marked_contents(3));
      prune_checkpoints(dir.path(), 1);
    });
    if (fate == testing::Fate::kUntraceable) GTEST_SKIP() << "ptrace is not allowed here";
    ASSERT_NE(fate, testing::Fate::kFailed);
    const auto found = newest_good_checkpoint(dir.path());
    ASSERT_TRUE(found) << "killed at call " << call;
    const double mark = mark_of(*found);
    EXPECT_TRUE(found->step() == 1 ? mark == 1 || mark == 2 : mark == 3) << mark;
    for (const std::string& name : entries(dir.path())) {
      EXPECT_TRUE(name.starts_with("step-")) << name << " left behind by call " << call;
      Checkpoint::open(dir / name);
    }
  }
  EXPECT_GT(call, 100) << "too few system calls for two saves: the test proved nothing";
}

// Saves, replaces and prunes for ever, in every other round in a thread, beginning with `step`;
// every checkpoint has its own mark.
[[noreturn]] void save_for_ever(const fs::path& directory, std::int64_t step, int round) {
  for (int i = 0;; ++i) {
    const auto save = [&] {
      save_checkpoint(directory, step + i / 2, marked_contents(1000 * round + i, 50'000));
      prune_checkpoints(directory, 2);
    };
    BackgroundSave thread;
    if (round % 2 == 0) save();
    if (round % 2 == 1) thread.start(step, save);
    thread.finish("the next");
  }
}

TEST(CheckpointFailureSlow, KillingASaverAtAnyMomentLeavesAGoodCheckpoint) {
  const InMemory in_memory;
  const log::level::level_enum level = log::get_level();
  log::set_level(log::level::warn);  // not of every save that the thread is waited for
  const TempDir dir;
  // The moments cover a few saves, however fast the disk is.
  const auto begin = std::chrono::steady_clock::now();
  save_checkpoint(dir.path(), 0, marked_contents(0, 50'000));
  save_checkpoint(dir.path(), 0, marked_contents(0, 50'000));
  const std::chrono::duration<double> two_saves = std::chrono::steady_clock::now() - begin;
  std::int64_t newest = 0;
  double newest_mark = 0;
  for (int round = 1; round <= 40; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      try {
        save_for_ever(dir.path(), newest, round);
      } catch (const std::exception&) {
        ::_exit(1);
      }
    }
    const double moment = philox_uniform({1, 0, 0}, static_cast<std::uint64_t>(round));
    std::this_thread::sleep_for(4.0 * moment * two_saves);
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the saver failed by itself";

    std::vector<std::string> rejected;
    const auto found = newest_good_checkpoint(dir.path(), &rejected);
    ASSERT_TRUE(found);
    EXPECT_TRUE(rejected.empty()) << rejected.front();
    const double mark = mark_of(*found);
    EXPECT_GE(mark, newest_mark);  // also detects files of different saves, whose mark is -1
    newest_mark = mark;
    EXPECT_GE(found->step(), newest);
    newest = found->step();
  }
  log::set_level(level);
  EXPECT_GT(newest_mark, 0) << "no save ever finished: the test proved nothing";
}

}  // namespace
}  // namespace carousel
