#include "train/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/log.h"
#include "tests/support/capture_stderr.h"
#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"

namespace carousel {
namespace {

using testing::read_file;
using testing::TempDir;

StepReport example() {
  return {.step = 61,
          .steps = 74,
          .loss = 3.20891,
          .gradient_norm = 1.48,
          .lr = 3e-4,
          .seconds = 0.0446,
          .tokens = 4099,
          .training_flops = 1.936e13,
          .peak_flops = std::nullopt,
          .memory_bytes = 13207024435,
          .eta_seconds = 62.3};
}

TEST(Progress, TheLineNamesEveryQuantity) {
  StepReport report = example();
  EXPECT_EQ(format_progress(report),
            "step 61/74 | loss 3.2089 | norm 1.480 | lr 3.0e-04 | 44.6 ms | 91.9k tok/s | MFU n/a "
            "| mem 12.3 GiB | eta 0:01:02");
  report.peak_flops = 1e15;
  EXPECT_NE(format_progress(report).find(" | MFU 43.4% | "), std::string::npos)
      << format_progress(report);
}

TEST(Progress, UnitsFollowTheSize) {
  StepReport report = example();
  report.seconds = 12.5;
  report.tokens = 500;
  report.memory_bytes = std::size_t{50} << 20;
  report.eta_seconds = 100 * 3600 + 59.6;
  EXPECT_NE(format_progress(report).find(" | 12.5 s | 40 tok/s | "), std::string::npos)
      << format_progress(report);
  EXPECT_TRUE(format_progress(report).ends_with(" | mem 0.0 GiB | eta 100:01:00"))
      << format_progress(report);
  report.seconds = 0.5;
  report.tokens = 617'000;
  EXPECT_NE(format_progress(report).find(" | 500.0 ms | 1.23M tok/s | "), std::string::npos);
}

TEST(ProgressLine, WritesEveryNthAndTheLastStepWhereThereIsNoTerminal) {
  const TempDir dir;
  ::testing::internal::CaptureStderr();
  init_logging(dir / "train.log");
  {
    ProgressLine progress(30);
    StepReport report = example();
    for (report.step = 58; report.step <= report.steps; ++report.step) progress.show(report);
  }
  const std::string text = ::testing::internal::GetCapturedStderr();
  init_logging();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2) << text;
  EXPECT_NE(text.find("info: step 60/74 | loss"), std::string::npos) << text;
  EXPECT_NE(text.find("info: step 74/74 | loss"), std::string::npos) << text;
}

TEST(ProgressLine, IsRewrittenInPlaceOnATerminal) {
  const TempDir dir;
  std::string text;
  {
    const testing::TerminalStderr terminal(200);
    init_logging(dir / "train.log");
    {
      ProgressLine progress(10);
      StepReport report = example();
      for (report.step = 59; report.step <= 61; ++report.step) progress.show(report);
    }
    text = terminal.read();
  }
  init_logging();
  EXPECT_TRUE(text.starts_with("\r\033[Kstep 59/74")) << text;
  EXPECT_NE(text.find("\r\033[Kstep 61/74"), std::string::npos) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;  // at the end
  const std::string file = read_file(dir / "train.log");
  EXPECT_EQ(std::count(file.begin(), file.end(), '\n'), 1) << file;
  EXPECT_NE(file.find("step 60/74"), std::string::npos) << file;
}

TEST(Metrics, AreOneJsonObjectALineWrittenAtOnce) {
  const TempDir dir;
  MetricsFile metrics(dir / "metrics.jsonl", 0);
  metrics.write(step_record(example()));
  const std::string text = read_file(dir / "metrics.jsonl");
  EXPECT_TRUE(text.ends_with("}\n"));
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json["step"], 61);
  EXPECT_EQ(json["loss"], 3.20891);
  EXPECT_EQ(json["grad_norm"], 1.48);
  EXPECT_EQ(json["lr"], 3e-4);
  EXPECT_EQ(json["memory_bytes"], 13207024435);
  EXPECT_DOUBLE_EQ(json["tokens_per_second"].get<double>(), 4099 / 0.0446);
  EXPECT_FALSE(json.contains("mfu"));
  StepReport fast = example();
  fast.peak_flops = 1e15;
  EXPECT_NEAR(step_record(fast)["mfu"].get<double>(), 0.434, 1e-3);
}

TEST(Metrics, ResumingDropsWhatCameAfterTheCheckpoint) {
  const TempDir dir;
  const std::string path = dir.write("metrics.jsonl",
                                     "{\"step\":1}\n"
                                     "{\"step\":2}\n"
                                     "{\"step\":2,\"eval_loss\":3}\n"
                                     "{\"step\":3}\n"
                                     "{\"step\":4,\"lo");  // killed while it wrote
  {
    MetricsFile metrics(path, 2);
    metrics.write({{"step", 3}, {"again", true}});
  }
  EXPECT_EQ(read_file(path),
            "{\"step\":1}\n{\"step\":2}\n{\"step\":2,\"eval_loss\":3}\n"
            "{\"again\":true,\"step\":3}\n");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
}

TEST(Metrics, AHalfWrittenLastLineIsDroppedEvenIfItsStepIsOld) {
  const TempDir dir;
  const std::string path = dir.write("metrics.jsonl", "{\"step\":1}\n{\"step\":2}");
  { MetricsFile metrics(path, 9); }
  EXPECT_EQ(read_file(path), "{\"step\":1}\n");
}

TEST(Metrics, AWholeFileIsKeptAsItIs) {
  const TempDir dir;
  const std::string text = "{\"step\":1}\n{\"step\":2}\n";
  const std::string path = dir.write("metrics.jsonl", text);
  { MetricsFile metrics(path, 2); }
  EXPECT_EQ(read_file(path), text);
  { MetricsFile metrics(path, 0); }  // a run that starts over
  EXPECT_EQ(read_file(path), "");
}

TEST(Metrics, DamagedLinesDoNotSurvive) {
  const TempDir dir;
  const std::string path = dir.write(
      "metrics.jsonl",
      std::string("{\"step\":1}\n\nnot json\n[1]\n{\"loss\":1}\n{\"step\":\"2\"}\n\0\xff\n"
                  "{\"step\":2}\n",
                  63));
  { MetricsFile metrics(path, 9); }
  EXPECT_EQ(read_file(path), "{\"step\":1}\n{\"step\":2}\n");
}

TEST(Metrics, UnwritablePlacesAreNamed) {
  testing::expect_error<UsageError>([] { MetricsFile("/nowhere/metrics.jsonl", 0); },
                                    {"/nowhere/metrics.jsonl", "choose a writable output_dir"});
  testing::expect_error<UsageError>(
      [] {
        MetricsFile("/dev/full", 0).write({{"step", 1}});
      },
      {"/dev/full", "No space left", "make room"});
}

TEST(Metrics, MemoryInUseIsThatOfThisProcess) {
  EXPECT_GT(memory_in_use(kCpu), std::size_t{1} << 20);
  EXPECT_LT(memory_in_use(kCpu), std::size_t{1} << 40);
}

}  // namespace
}  // namespace carousel
