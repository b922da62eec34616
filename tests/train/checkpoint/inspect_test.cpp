#include "train/checkpoint/inspect.h"

#include <gtest/gtest.h>
#include <utime.h>

#include "tests/support/temp_dir.h"
#include "tests/train/checkpoint/support.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using testing::entries;
using testing::marked_contents;
using testing::read_file;
using testing::TempDir;

std::vector<std::int64_t> steps_of(const std::vector<CheckpointReport>& reports) {
  std::vector<std::int64_t> steps;
  for (const CheckpointReport& report : reports) steps.push_back(report.step.value_or(-1));
  return steps;
}

// The step of the report that is marked; −1 if none is.
std::int64_t resumed(const std::vector<CheckpointReport>& reports) {
  EXPECT_LE(std::ranges::count(reports, true, &CheckpointReport::resumed), 1);
  const auto found = std::ranges::find(reports, true, &CheckpointReport::resumed);
  return found == reports.end() ? -1 : *found->step;
}

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(InspectCheckpoints, TellsWhatEachHolds) {
  const TempDir dir;
  CheckpointContents contents = marked_contents(1);
  contents.trainer = {{"world_size", 4}, {"samples", 5'000'000'000}};
  contents.model.push_back({"half", Tensor::zeros({2, 5}, DType::kBF16)});
  save_checkpoint(dir.path(), 1000, contents);
  const fs::path path = dir / "step-00001000";
  std::uint64_t bytes = 0;
  for (const std::string& name : entries(path)) bytes += fs::file_size(path / name);
  const utimbuf times{.actime = 0, .modtime = 1'700'000'000};
  ASSERT_EQ(::utime((path / "manifest.json").c_str(), &times), 0);

  const auto reports = inspect_checkpoints(dir.path());
  ASSERT_EQ(reports.size(), 1u);
  const CheckpointReport& report = reports[0];
  EXPECT_EQ(report.path, path);
  EXPECT_EQ(report.step, 1000);
  EXPECT_EQ(report.bytes, bytes);
  EXPECT_EQ(report.saved, 1'700'000'000);
  EXPECT_EQ(report.world_size, 4);
  EXPECT_EQ(report.samples, 5'000'000'000);
  EXPECT_EQ(report.parameters, 3013);
  EXPECT_EQ(report.dtype, "bf16/f32");
  EXPECT_EQ(report.problem, "");
  EXPECT_TRUE(report.contents_read && report.has_optimizer && report.resumed);
  const std::string table = to_string(reports);
  EXPECT_TRUE(table.starts_with("step ")) << table;
  EXPECT_SAYS(table, "\n1000  ");
  EXPECT_SAYS(table, "           4  3.013 k bf16/f32  5000000000  2023-11-1");
  EXPECT_TRUE(table.ends_with("  good, resume takes it\n")) << table;
}

TEST(InspectCheckpoints, NamesWhatIsWrongAndMarksTheOneThatResumeTakes) {
  const TempDir dir;
  for (int step = 0; step <= 5; ++step) save_checkpoint(dir.path(), step, marked_contents(step));
  std::string model = read_file(dir / "step-00000005/model.safetensors");
  model[model.size() - 5] ^= 0x10;
  dir.write("step-00000005/model.safetensors", model);
  fs::resize_file(dir / "step-00000004/optimizer.safetensors", 20);
  fs::remove(dir / "step-00000004/config.json");
  fs::remove(dir / "step-00000003/manifest.json");
  fs::remove_all(dir / "step-00000002");
  dir.write("step-00000002", "a file of that name");

  const auto reports = inspect_checkpoints(dir.path());
  EXPECT_EQ(steps_of(reports), (std::vector<std::int64_t>{5, 4, 3, 2, 1, 0}));
  EXPECT_SAYS(reports[0].problem, "model.safetensors: hash ");
  EXPECT_SAYS(reports[1].problem, "config.json: No such file");
  EXPECT_SAYS(reports[1].problem, "optimizer.safetensors: 20 bytes, the manifest says");
  EXPECT_SAYS(reports[2].problem, "manifest.json': No such file");
  EXPECT_SAYS(reports[3].problem, "Not a directory");
  EXPECT_EQ(reports[4].problem, "");
  EXPECT_EQ(reports[5].problem, "");
  EXPECT_EQ(resumed(reports), 1);
  EXPECT_EQ(newest_good_checkpoint(dir.path())->step(), 1);

  const std::string table = to_string(reports);
  EXPECT_EQ(std::ranges::count(table, '\n'), 7) << table;
  EXPECT_EQ(table.find(dir.path()), std::string::npos) << table;
  EXPECT_SAYS(table, "  damaged; delete it or restore it from a copy: model.safetensors: hash ");
  EXPECT_SAYS(table, ": config.json: No such file or directory; optimizer.safetensors: 20 bytes");
  EXPECT_SAYS(table, "  cannot open 'manifest.json': No such file or directory; check");
}

TEST(InspectCheckpoints, SizesAloneDoNotTellOfContents) {
  const TempDir dir;
  for (int step = 1; step <= 3; ++step) save_checkpoint(dir.path(), step, marked_contents(step));
  std::string model = read_file(dir / "step-00000002/model.safetensors");
  model.back() ^= 1;
  dir.write("step-00000002/model.safetensors", model);
  fs::resize_file(dir / "step-00000003/tokenizer.json", 1);
  const auto reports = inspect_checkpoints(dir.path(), {.read_contents = false});
  EXPECT_SAYS(reports[0].problem, "tokenizer.json: 1 bytes");
  EXPECT_EQ(reports[1].problem, "");
  EXPECT_EQ(resumed(reports), 2);
  const std::string table = to_string(reports);
  EXPECT_SAYS(table, "  sizes match, resume takes it if hashes match too\n");
  EXPECT_EQ(table.find("good"), std::string::npos) << table;
}

TEST(InspectCheckpoints, ModelsWithoutOptimizerStateCannotBeResumed) {
  const TempDir dir;
  CheckpointContents contents = marked_contents(2);
  contents.optimizer.clear();
  save_checkpoint(dir.path(), 1, marked_contents(1));
  save_checkpoint(dir.path(), 2, contents);
  const auto reports = inspect_checkpoints(dir.path());
  EXPECT_EQ(reports[0].problem, "");
  EXPECT_EQ(resumed(reports), -1);  // nor does training go back to step 1
  EXPECT_SAYS(to_string(reports), "  good, no optimizer state to resume from\n");
  save_checkpoint(dir / "imported", 0, contents);
  EXPECT_SAYS(to_string(inspect_checkpoints(dir / "imported")),
              "  good, an imported model to begin with\n");
}

TEST(InspectCheckpoints, FieldsOfAnotherFormStayUnknown) {
  const TempDir dir;
  for (const nlohmann::json& odd :
       {nlohmann::json("4"), nlohmann::json(-4), nlohmann::json(0.5), nlohmann::json(UINT64_MAX),
        nlohmann::json(nullptr), nlohmann::json::array({4}), nlohmann::json::object()}) {
    CheckpointContents contents = marked_contents(1);
    contents.trainer = {{"world_size", odd}, {"samples", odd}};
    save_checkpoint(dir.path(), 1, contents);
    const auto report = inspect_checkpoint(dir / "step-00000001");
    ASSERT_TRUE(report);
    EXPECT_EQ(report->problem, "") << odd;
    EXPECT_EQ(report->world_size, 0) << odd;
    EXPECT_EQ(report->samples, 0) << odd;
    EXPECT_SAYS(to_string({*report}), "  -  ");
  }
}

TEST(InspectCheckpoints, BrokenFilesCannotWriteToTheTerminal) {
  const TempDir dir;
  dir.write("step-00000001/manifest.json",
            R"({"format": "carousel-checkpoint", "version": 1, "step": 1, "xxh3": "",)"
            R"( "files": {"\u001b[2J\nstep": {"bytes": 1, "xxh3": ""}}})");
  const auto reports = inspect_checkpoints(dir.path());
  ASSERT_EQ(reports.size(), 1u);
  const std::string table = to_string(reports);
  EXPECT_SAYS(table, "is not a sound manifest: '?[2J");
  EXPECT_EQ(table.find('\x1b'), std::string::npos);
  EXPECT_EQ(std::ranges::count(table, '\n'), 2) << table;
}

TEST(InspectCheckpoints, ChangeNothingAndWaitForNobody) {
  const TempDir dir;
  save_checkpoint(dir.path(), 1, marked_contents(1));
  save_checkpoint(dir.path(), 2, marked_contents(2));
  fs::rename(dir / "step-00000002", dir / ".step-00000002.old");
  fs::create_directory(temporary_path(dir.path(), 3));
  const auto before = entries(dir.path());
  for (const bool saving : {false, true}) {
    std::optional<DirectoryLock> saver;
    if (saving) saver.emplace(dir.path(), DirectoryLock::Mode::kWait);
    const auto reports = inspect_checkpoints(dir.path());
    EXPECT_EQ(entries(dir.path()), before);
    EXPECT_EQ(steps_of(reports), (std::vector<std::int64_t>{2, 1}));
    EXPECT_EQ(resumed(reports), 2);
    EXPECT_SAYS(to_string(reports),
                "takes it; left as '.step-00000002.old' by an interrupted save\n");
  }
  EXPECT_EQ(newest_good_checkpoint(dir.path())->step(), 2);
  EXPECT_TRUE(inspect_checkpoints(dir / "none").empty());
  fs::rename(dir / "step-00000002", dir / ".step-00000002.old");
  fs::remove(dir / ".step-00000002.old/manifest.json");
  const auto reports = inspect_checkpoints(dir.path());
  EXPECT_EQ(steps_of(reports), (std::vector<std::int64_t>{2, 1}));
  EXPECT_SAYS(to_string(reports), "check the path; left as '.step-00000002.old' by an");
}

// As a run with keep: 1 does between the listing and the reading.
TEST(InspectCheckpoints, ThoseThatVanishAreLeftOutForThoseThatReplaceThem) {
  const TempDir dir;
  for (int step = 1; step <= 3; ++step) save_checkpoint(dir.path(), step, marked_contents(step));
  int calls = 0;
  const auto reports =
      inspect_checkpoints(dir.path(), {.before_reading = [&](const fs::path&, std::uint64_t bytes) {
                            EXPECT_GT(bytes, 0u);
                            if (++calls > 1) return;
                            save_checkpoint(dir.path(), 4, marked_contents(4));
                            prune_checkpoints(dir.path(), 1);
                          }});
  EXPECT_EQ(steps_of(reports), std::vector<std::int64_t>{4}) << to_string(reports);
  EXPECT_EQ(resumed(reports), 4);
  EXPECT_EQ(calls, 2);

  const InspectOptions deletes{
      .before_reading = [](const fs::path& path, std::uint64_t) { fs::remove_all(path); }};
  EXPECT_TRUE(inspect_checkpoints(dir.path(), deletes).empty());
  EXPECT_FALSE(inspect_checkpoint(dir / "step-00000004"));
}

TEST(InspectCheckpoints, ALinkToNothingDoesNotVanish) {
  const TempDir dir;
  fs::create_symlink("nowhere", dir / "step-00000001");
  const auto reports = inspect_checkpoints(dir.path());
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_SAYS(reports[0].problem, "No such file");
}

TEST(InspectCheckpoints, OneThatIsReplacedMeanwhileIsReadAgain) {
  const TempDir dir;
  save_checkpoint(dir.path(), 1, marked_contents(1));
  int calls = 0;
  const auto reports =
      inspect_checkpoints(dir.path(), {.before_reading = [&](const fs::path& path, std::uint64_t) {
                            if (++calls == 1) {
                              fs::rename(path, dir / "aside");
                              fs::create_directory(path);
                            } else {
                              fs::remove(path);
                              fs::rename(dir / "aside", path);
                            }
                          }});
  EXPECT_EQ(calls, 2);
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_EQ(reports[0].problem, "");
  EXPECT_GT(reports[0].parameters, 0);
}

}  // namespace
}  // namespace carousel
