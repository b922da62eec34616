#include "train/tensorboard.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/support/child.h"
#include "tests/support/errors.h"
#include "tests/support/event_file.h"
#include "tests/train/checkpoint/support.h"
#include "train/environment.h"

namespace carousel {
namespace {

using namespace std::string_literals;
using testing::entries;
using testing::read_events;
using testing::ReadEvent;
using testing::TempDir;

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

TEST(Crc32c, MatchesThePublishedVectors) {
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  // RFC 3720, B.4.
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  std::string rising;
  for (char c = 0; c < 32; ++c) rising += c;
  EXPECT_EQ(crc32c(rising), 0x46dd794eu);
}

TEST(TfRecord, IsFramedAsTensorBoardsOwnWriterDoes) {
  EXPECT_EQ(tfrecord("foo"),
            "\x03\0\0\0\0\0\0\0\xb0\x99\x49\x0e"
            "foo\x61\x8a\xbe\xfe"s);
  const std::string event =
      "\x09\0\0\0\0\0\0\xf8\x3f\x1a\x0d"
      "brain.Event:2"s;
  EXPECT_EQ(tfrecord(event), "\x18\0\0\0\0\0\0\0\xa3\x7f\x4b\x22"s + event + "\x2a\x28\x64\x6c"s);
}

TEST(EventFile, NamesTheCurvesByPhase) {
  EXPECT_EQ(scalar_tag("loss"), "train/loss");
  EXPECT_EQ(scalar_tag("grad_norm"), "train/grad_norm");
  EXPECT_EQ(scalar_tag("val_loss"), "eval/loss");
  EXPECT_EQ(scalar_tag("val_bits_per_byte"), "eval/bits_per_byte");
  EXPECT_EQ(scalar_tag("checkpoint_stall_ms"), "checkpoint/stall_ms");
}

TEST(EventFile, HoldsEveryNumberOfARecordAtOnce) {
  const TempDir dir;
  const double begin = now();
  EventFile file(dir / "tensorboard", 0);
  const auto names = entries(dir / "tensorboard");
  ASSERT_EQ(names.size(), 1u);
  const std::string path = dir / ("tensorboard/" + names[0]);

  auto events = read_events(path);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].file_version, "brain.Event:2");
  EXPECT_TRUE(events[1].start);
  EXPECT_EQ(events[1].step, 1);

  file.write({{"step", 200}, {"loss", 2.25}, {"memory_bytes", 1 << 20}, {"note", "no number"}});
  events = read_events(path);  // while the file is open
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[2].step, 200);
  EXPECT_EQ(events[2].scalars, (std::map<std::string, float>{{"train/loss", 2.25f},
                                                             {"train/memory_bytes", 1048576.0f}}));
  file.write({{"step", std::int64_t{1} << 40}, {"val_loss", 0.1}});
  events = read_events(path);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[3].step, std::int64_t{1} << 40);
  EXPECT_EQ(events[3].scalars, (std::map<std::string, float>{{"eval/loss", 0.1f}}));
  double earlier = begin;
  for (const ReadEvent& event : events) {
    EXPECT_GE(event.wall_time, earlier);
    EXPECT_LE(event.wall_time, now());
    EXPECT_EQ(&event == &events[1], event.start);
    earlier = event.wall_time;
  }
}

TEST(EventFile, TellsWhereAResumedRunStarts) {
  const TempDir dir;
  const EventFile file(dir.path(), 40);
  const auto events = read_events(dir / entries(dir.path())[0]);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_TRUE(events[1].start);
  EXPECT_EQ(events[1].step, 41);  // all of step 40 is kept
}

TEST(EventFile, IsNamedForTimeHostAndProcess) {
  const TempDir dir;
  const auto begin = static_cast<long>(now());
  const EventFile file(dir.path(), 0);
  const std::string name = entries(dir.path())[0];
  const std::string prefix = "events.out.tfevents.";
  const std::string suffix = fmt::format(".{}.{}", host_name(), ::getpid());
  ASSERT_TRUE(name.starts_with(prefix)) << name;
  ASSERT_TRUE(name.ends_with(suffix)) << name;
  const std::string seconds =
      name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
  EXPECT_GE(std::stol(seconds), begin);
  EXPECT_LE(std::stol(seconds), begin + 10);
}

TEST(EventFile, ComesBehindAllOlderOnes) {
  const TempDir dir;
  for (int i = 0; i < 3; ++i) EventFile(dir.path(), i).write({{"step", i + 1}, {"loss", i}});
  const auto names = entries(dir.path());
  ASSERT_EQ(names.size(), 3u);  // although they are of one second and one process
  for (std::size_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(read_events(dir / names[i]).back().scalars.at("train/loss"), static_cast<float>(i));
  }
  dir.write("events.out.tfevents.5000000000.zzz.1", "");  // the clock was wrong
  dir.write("events.out.tfevents.not-a-time", "");
  dir.write("notes.txt", "");
  const EventFile file(dir.path(), 0);
  EXPECT_TRUE(entries(dir.path())[4].starts_with("events.out.tfevents.5000000001."));
}

TEST(EventFile, UnwritablePlacesAreNamed) {
  const TempDir dir;
  const std::string in_the_way = dir.write("in-the-way", "");
  testing::expect_error<UsageError>([&] { EventFile(in_the_way, 0); },
                                    {in_the_way, "choose a writable output_dir"});
}

TEST(EventFile, AWriteThatFailsIsTold) {
  const TempDir dir;
  const std::string said = testing::in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{150, 150};  // the beginning takes 80
    ::setrlimit(RLIMIT_FSIZE, &limit);
    EventFile file(dir.path(), 0);
    return testing::message_of<UsageError>([&] {
      for (int step = 1; step < 10; ++step) file.write({{"step", step}, {"loss", 1.0}});
    });
  });
  for (const std::string& part :
       {entries(dir.path())[0], std::string("File too large; make room")}) {
    EXPECT_NE(said.find(part), std::string::npos) << said;
  }
}

}  // namespace
}  // namespace carousel
