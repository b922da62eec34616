#include "train/checkpoint/manifest.h"

#include <gtest/gtest.h>

#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"

namespace carousel {
namespace {

using testing::expect_error;
using testing::TempDir;

Manifest example() {
  return {.step = 12, .files = {{"a", {3, 0x0123456789abcdef}}, {"b.json", {0, 1}}}};
}

std::string with(const std::string& what, const std::string& other) {
  std::string text = to_json(example());
  const auto at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return text.replace(at, what.size(), other);
}

void expect_refused(const std::string& text, const std::string& part) {
  expect_error<CheckpointError>([&] { parse_manifest("dir/manifest.json", text); },
                                {"dir/manifest.json", part});
}

TEST(Manifest, SurvivesTheWayThroughText) {
  const Manifest read = parse_manifest("m", to_json(example()));
  EXPECT_EQ(read.step, 12);
  EXPECT_EQ(read.files, example().files);
}

TEST(Manifest, ChangedContentsAreRefused) {
  expect_refused(with("12", "13"), "own hash");
  expect_refused(with("\"bytes\": 3", "\"bytes\": 4"), "own hash");
  expect_refused(with("b.json", "c.json"), "own hash");
  expect_refused(with("\"step\"", "\"more\": 1, \"step\""), "own hash");
  expect_refused(with("\"bytes\": 3", "\"bytes\": 3, \"mode\": 1, \"bytes\": 4"), "own hash");
}

TEST(Manifest, BrokenTextIsRefused) {
  expect_refused("", "parse error");
  expect_refused("{}", "format");
  expect_refused("[]", "");
  expect_refused(std::string(100'000, '['), "parse error");
  expect_refused(with("carousel-checkpoint", "another"), "format");
  expect_refused(with("\"version\": 1", "\"version\": 2"),
                 "format version 2, this program reads 1");
  expect_refused(with("\"step\": 12", "\"step\": -12"), "step is not a natural number");
  expect_refused(with("\"step\": 12", "\"step\": 1e300"), "step is not a natural number");
  expect_refused(with("\"step\": 12", "\"step\": 18446744073709551615"), "too large");
  expect_refused(with("\"bytes\": 3", "\"bytes\": \"3\""), "bytes is not a natural number");
  expect_refused(with("0123456789abcdef", "0123456789ABCDEF"), "hexadecimal");
  expect_refused(with("0123456789abcdef", "0123456789abcde"), "hexadecimal");
}

TEST(Manifest, NamesThatLeaveTheDirectoryAreRefused) {
  for (const char* name : {"../a", "a/b", "/etc/passwd", ".", "", "a b", "\\u0007"}) {
    expect_refused(with("\"a\"", fmt::format("\"{}\"", name)), "not a plain file name");
  }
}

TEST(WriteHashed, RecordsWhatReachedTheFile) {
  const TempDir dir;
  const std::string large(3'000'000, 'x');  // more than one piece
  const FileRecord record = write_hashed(dir / "a", [&](OutputFile& file) {
    file.write("head");
    file.write(large);
    file.write("");
  });
  EXPECT_EQ(record.bytes, large.size() + 4);
  EXPECT_EQ(testing::read_file(dir / "a"), "head" + large);
  EXPECT_EQ(hash_file(dir / "a"), record);
  dir.write("b", "head" + large + "y");
  EXPECT_NE(hash_file(dir / "b"), record);
}

}  // namespace
}  // namespace carousel
