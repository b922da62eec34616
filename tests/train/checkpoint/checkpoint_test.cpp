#include "train/checkpoint/checkpoint.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"
#include "tests/train/checkpoint/support.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using testing::entries;
using testing::expect_error;
using testing::mark_of;
using testing::marked_contents;
using testing::read_file;
using testing::TempDir;

const std::vector<std::string> kFiles{"config.json",       "manifest.json",
                                      "model.safetensors", "optimizer.safetensors",
                                      "tokenizer.json",    "trainer.json"};

TEST(Checkpoint, HoldsEverythingThatWasSaved) {
  const TempDir dir;
  save_checkpoint(dir / "run/checkpoints", 1000, marked_contents(7));
  const fs::path path = dir / "run/checkpoints/step-00001000";
  EXPECT_EQ(entries(path), kFiles);
  EXPECT_EQ(entries(path.parent_path()), std::vector<std::string>{"step-00001000"});
  const Checkpoint checkpoint = Checkpoint::open(path);
  EXPECT_EQ(checkpoint.step(), 1000);
  EXPECT_EQ(checkpoint.path(), path);
  EXPECT_EQ(mark_of(checkpoint), 7);
  EXPECT_EQ(checkpoint.model().metadata().at("format"), "pt");
  EXPECT_EQ(checkpoint.tokenizer_json(), R"({"kind": "byte"})");
}

TEST(Checkpoint, OmitsWhatIsEmpty) {
  const TempDir dir;
  CheckpointContents contents = marked_contents(1);
  contents.optimizer.clear();
  contents.config_json.clear();
  contents.tokenizer_json.clear();
  save_checkpoint(dir.path(), 0, contents);
  const Checkpoint checkpoint = Checkpoint::open(dir / "step-00000000");
  EXPECT_FALSE(checkpoint.has_optimizer());
  EXPECT_EQ(checkpoint.config_json(), "");
  EXPECT_EQ(checkpoint.tokenizer_json(), "");
  EXPECT_EQ(checkpoint_tokenizer(checkpoint), nullptr);
  expect_error<CheckpointError>([&] { checkpoint.optimizer(); },
                                {"step-00000000", "no optimizer state"});
}

TEST(Checkpoint, SavingTheSameStepAgainReplacesIt) {
  const TempDir dir;
  save_checkpoint(dir.path(), 5, marked_contents(1));
  save_checkpoint(dir.path(), 5, marked_contents(2));
  EXPECT_EQ(entries(dir.path()), std::vector<std::string>{"step-00000005"});
  EXPECT_EQ(mark_of(Checkpoint::open(dir / "step-00000005")), 2);
}

// In place: a file system may sync every file that is truncated and written again.
void flip_bit(const fs::path& path, std::size_t bit) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  const auto at = static_cast<std::streamoff>(bit / 8);
  file.seekg(at);
  const auto byte = static_cast<char>(file.get() ^ (1 << bit % 8));
  file.seekp(at);
  file.put(byte);
}

TEST(Checkpoint, FlippedBitsAreFoundInEveryFile) {
  const TempDir dir;
  save_checkpoint(dir.path(), 1, marked_contents(3, 700));
  const fs::path path = dir / "step-00000001";
  for (const std::string& name : kFiles) {
    // All bits of small files, some of the large one, but every bit of a byte.
    const std::size_t size = fs::file_size(path / name);
    for (std::size_t bit = 0; bit<8 * size; bit += size> 1000 ? 997 : 1) {
      flip_bit(path / name, bit);
      expect_error<CheckpointError>([&] { Checkpoint::open(path); }, {"step-00000001", name});
      flip_bit(path / name, bit);
    }
  }
  EXPECT_EQ(mark_of(Checkpoint::open(path)), 3);
}

TEST(Checkpoint, EveryTruncatedOrMissingFileIsFound) {
  const TempDir dir;
  save_checkpoint(dir.path(), 1, marked_contents(3));
  const fs::path path = dir / "step-00000001";
  for (const std::string& name : kFiles) {
    const std::string good = read_file(path / name);
    for (const std::size_t size : {std::size_t{0}, good.size() / 2, good.size() - 1}) {
      // The manifest's last byte is a line feed that it can do without.
      if (name == Manifest::kFileName && size == good.size() - 1) continue;
      dir.write("step-00000001/" + name, good.substr(0, size));
      expect_error<CheckpointError>([&] { Checkpoint::open(path); }, {"step-00000001", name});
    }
    fs::remove(path / name);
    expect_error<CheckpointError>([&] { Checkpoint::open(path); }, {name, "No such file"});
    fs::create_directory(path / name);
    expect_error<CheckpointError>([&] { Checkpoint::open(path); }, {"step-00000001", name});
    fs::remove(path / name);
    dir.write("step-00000001/" + name, good);
  }
}

TEST(Checkpoint, AllDamageIsListedAtOnce) {
  const TempDir dir;
  save_checkpoint(dir.path(), 1, marked_contents(3));
  fs::remove(dir / "step-00000001/optimizer.safetensors");
  dir.write("step-00000001/trainer.json", "{}");
  expect_error<CheckpointError>(
      [&] { Checkpoint::open(dir / "step-00000001"); },
      {"optimizer.safetensors: No such file", "trainer.json: 2 bytes", "delete it or restore it"});
}

TEST(Checkpoint, ABadTokenizerIsACheckpointError) {
  const TempDir dir;
  for (const std::string& text : {std::string("{"), std::string(R"({"kind": "unknown"})")}) {
    CheckpointContents contents = marked_contents(1);
    contents.tokenizer_json = text;
    save_checkpoint(dir.path(), 1, contents);
    expect_error<CheckpointError>(
        [&] { checkpoint_tokenizer(Checkpoint::open(dir / "step-00000001")); }, {"tokenizer.json"});
  }
}

TEST(Checkpoint, ATrainerJsonOfAnotherFormIsACheckpointError) {
  const TempDir dir;
  save_checkpoint(dir.path(), 1, marked_contents(1));
  const auto refused = [&](const nlohmann::json& trainer, const std::string& why) {
    CheckpointContents contents = marked_contents(2);
    contents.trainer = trainer;
    save_checkpoint(dir.path(), 2, contents);
    expect_error<CheckpointError>([&] { Checkpoint::open(dir / "step-00000002"); },
                                  {"step-00000002/trainer.json", why});
    EXPECT_EQ(newest_good_checkpoint(dir.path())->step(), 1);
  };
  refused(nlohmann::json::array({1, 2}), "not a JSON object");
  refused("text", "not a JSON object");
  refused({{"config", 12}}, "config is 12, must be an object of texts");
  refused({{"config", {{"seed", 1}}}}, "config is object, must be an object of texts");
  refused({{"resumed_from", 1}}, "resumed_from is 1, must be text");
  refused({{"train_tokens", -1}}, "train_tokens is -1, must be a number of tokens");
  refused({{"val_tokens", "7"}}, "val_tokens is \"7\", must be a number of tokens");
}

TEST(Checkpoint, OpensBySizesAloneOnRequest) {
  const TempDir dir;
  save_checkpoint(dir.path(), 1, marked_contents(3));
  flip_bit(dir / "step-00000001/model.safetensors", 8000);
  EXPECT_EQ(Checkpoint::open(dir / "step-00000001", false).step(), 1);
  fs::resize_file(dir / "step-00000001/model.safetensors", 1000);
  expect_error<CheckpointError>([&] { Checkpoint::open(dir / "step-00000001", false); },
                                {"model.safetensors: 1000 bytes"});
}

TEST(NewestGoodCheckpoint, IsTheHighestStepOrNothing) {
  const TempDir dir;
  EXPECT_FALSE(newest_good_checkpoint(dir / "none"));
  EXPECT_FALSE(newest_good_checkpoint(dir.path()));
  for (const std::int64_t step : {9, 100'000'000, 10}) {
    save_checkpoint(dir.path(), step, marked_contents(static_cast<double>(step)));
  }
  EXPECT_EQ(newest_good_checkpoint(dir.path())->step(), 100'000'000);
}

TEST(NewestGoodCheckpoint, NamesBadOnesAndTakesTheNext) {
  const TempDir dir;
  for (int step = 1; step <= 4; ++step) save_checkpoint(dir.path(), step, marked_contents(step));
  fs::remove(dir / "step-00000004/manifest.json");
  dir.write("step-00000003/model.safetensors", "");
  dir.write("step-00000005", "a file of that name");
  std::vector<std::string> rejected;
  const auto found = newest_good_checkpoint(dir.path(), &rejected);
  ASSERT_TRUE(found);
  EXPECT_EQ(mark_of(*found), 2);
  ASSERT_EQ(rejected.size(), 3u);
  EXPECT_NE(rejected[0].find("step-00000005"), std::string::npos) << rejected[0];
  EXPECT_NE(rejected[1].find("step-00000004/manifest.json"), std::string::npos) << rejected[1];
  EXPECT_NE(rejected[2].find("model.safetensors: 0 bytes"), std::string::npos) << rejected[2];
}

TEST(NewestGoodCheckpoint, NeverStartsAnewBehindBadOnes) {
  const TempDir dir;
  for (int step = 1; step <= 2; ++step) {
    save_checkpoint(dir.path(), step, marked_contents(step));
    dir.write(checkpoint_name(step) + "/trainer.json", "");
  }
  expect_error<CheckpointError>([&] { newest_good_checkpoint(dir.path()); },
                                {"no good checkpoint", "step-00000001", "step-00000002"});
  dir.write("file", "");
  expect_error<CheckpointError>([&] { newest_good_checkpoint(dir / "file"); },
                                {"file", "Not a directory"});
}

TEST(PruneCheckpoints, KeepsTheNewest) {
  const TempDir dir;
  for (int step = 1; step <= 5; ++step) save_checkpoint(dir.path(), step, marked_contents(step));
  dir.write("notes.txt", "");
  prune_checkpoints(dir.path(), 0);
  EXPECT_EQ(entries(dir.path()).size(), 6u);
  prune_checkpoints(dir.path(), 2);
  EXPECT_EQ(entries(dir.path()),
            (std::vector<std::string>{"notes.txt", "step-00000004", "step-00000005"}));
  prune_checkpoints(dir.path(), 10);
  EXPECT_EQ(entries(dir.path()).size(), 3u);
  prune_checkpoints(dir / "none", 1);
}

TEST(PruneCheckpoints, BadOnesDoNotCount) {
  const TempDir dir;
  for (int step = 1; step <= 6; ++step) save_checkpoint(dir.path(), step, marked_contents(step));
  const std::string model = read_file(dir / "step-00000006/model.safetensors");
  dir.write("step-00000006/model.safetensors", std::string(model.size(), '\0'));
  fs::remove(dir / "step-00000004/optimizer.safetensors");
  prune_checkpoints(dir.path(), 2);
  EXPECT_EQ(entries(dir.path()), (std::vector<std::string>{"step-00000003", "step-00000004",
                                                           "step-00000005", "step-00000006"}));
  EXPECT_EQ(newest_good_checkpoint(dir.path())->step(), 5);
}

TEST(PruneCheckpoints, DeletesNothingWhereNothingIsGood) {
  const TempDir dir;
  for (int step = 1; step <= 3; ++step) {
    save_checkpoint(dir.path(), step, marked_contents(step));
    const std::string text = read_file(dir / (checkpoint_name(step) + "/trainer.json"));
    dir.write(checkpoint_name(step) + "/trainer.json", std::string(text.size(), ' '));
  }
  prune_checkpoints(dir.path(), 1);
  EXPECT_EQ(entries(dir.path()).size(), 3u);
}

}  // namespace
}  // namespace carousel
