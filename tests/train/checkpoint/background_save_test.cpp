#include "train/checkpoint/background_save.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "core/base/error.h"
#include "core/base/log.h"
#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"

namespace carousel {
namespace {

using testing::expect_error;

// Sends the log to a file while it lives.
class LogFile {
 public:
  LogFile() { init_logging(path()); }
  ~LogFile() { init_logging(); }
  LogFile(const LogFile&) = delete;
  LogFile& operator=(const LogFile&) = delete;
  std::string text() const { return testing::read_file(path()); }

 private:
  std::string path() const { return dir_ / "log"; }
  testing::TempDir dir_;
};

// A save that lasts until it is released.
class SlowSave {
 public:
  void operator()() {
    begun_.set_value();
    released_.get_future().wait();
    done = true;
  }
  void wait_until_begun() { begun_.get_future().wait(); }
  void release() { released_.set_value(); }

  std::atomic<bool> done = false;

 private:
  std::promise<void> begun_, released_;
};

void fail_to_save() { throw CheckpointError("no space for it"); }

TEST(BackgroundSave, GoesOnBesideItsCaller) {
  const LogFile log;
  SlowSave slow;
  BackgroundSave save;
  save.finish("nobody");  // nothing is in flight
  save.start(7, [&] { slow(); });
  slow.wait_until_begun();
  save.check();  // does not wait
  EXPECT_FALSE(slow.done);
  slow.release();
  save.finish("the test");
  EXPECT_TRUE(slow.done);
}

TEST(BackgroundSave, IsOneAtATimeAndSaysForWhatItIsWaitedFor) {
  const LogFile log;
  SlowSave slow;
  BackgroundSave save;
  save.start(7, [&] { slow(); });
  slow.wait_until_begun();
  expect_error<InternalError>([&] { save.start(8, [] {}); }, {"step 8", "while step 7 is"});
  std::thread later([&] {
    const std::string line =
        "the checkpoint of step 8 waits for the checkpoint of step 7, which is still being written";
    while (log.text().find(line) == std::string::npos) std::this_thread::yield();
    EXPECT_FALSE(slow.done);
    slow.release();
  });
  save.finish("the checkpoint of step 8");
  EXPECT_TRUE(slow.done);
  later.join();
  save.start(8, [] {});
  save.finish("the test");
}

TEST(BackgroundSave, ThrowsItsErrorOnceFromCheckOrFinish) {
  BackgroundSave save;
  save.start(1, fail_to_save);
  expect_error<CheckpointError>(
      [&] {
        for (;;) {  // as steps go by
          save.check();
          std::this_thread::yield();
        }
      },
      {"no space for it"});
  save.check();
  save.start(2, fail_to_save);
  expect_error<CheckpointError>([&] { save.finish("the test"); }, {"no space for it"});
  save.finish("the test");
  save.start(3, [] {});
  save.finish("the test");
}

TEST(BackgroundSave, EndsBeforeItsOwnerDoesAndLogsItsError) {
  const LogFile log;
  std::atomic<bool> done = false;
  {
    BackgroundSave save;
    save.start(7, [&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      done = true;
      fail_to_save();
    });
  }
  EXPECT_TRUE(done);
  EXPECT_NE(log.text().find("error: the checkpoint of step 7 was not saved: no space for it"),
            std::string::npos)
      << log.text();
}

}  // namespace
}  // namespace carousel
