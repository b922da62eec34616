#include "data/files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "core/base/error.h"
#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"

namespace carousel {
namespace {

using testing::expect_error;
using testing::read_file;
using testing::TempDir;

CorpusFiles find(std::vector<std::string> entries) { return find_corpus_files(entries); }
std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST(AtomicFile, AppearsOnCommitOnly) {
  const TempDir dir;
  const std::string path = dir / "out";
  {
    AtomicFile file(path);
    file.write(bytes_of("....efg"));
    file.write_front(bytes_of("abcd"));
    EXPECT_FALSE(std::filesystem::exists(path));
    file.commit();
  }
  EXPECT_EQ(read_file(path), "abcdefg");
  { AtomicFile(path).write(bytes_of("lost")); }
  EXPECT_EQ(read_file(path), "abcdefg");
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
}

TEST(AtomicFile, NamesThePathThatCannotBeWritten) {
  const TempDir dir;
  expect_error<DataError>([&] { AtomicFile(dir / "no/such/out"); },
                          {"no/such/out", "cannot create"});
  std::filesystem::create_directories(dir / "folder/inside");
  AtomicFile file(dir / "folder");
  expect_error<DataError>([&] { file.commit(); }, {"folder", "cannot rename"});
}

TEST(FindCorpusFiles, ResolvesFilesDirectoriesAndPatterns) {
  const TempDir dir;
  const std::string a = dir.write("d/a.txt", "x");
  const std::string b = dir.write("d/b.txt", "x");
  const std::string b10 = dir.write("d/b10.txt", "x");
  dir.write("d/notes.md", "x");
  dir.write("d/deeper/c.txt", "x");
  const std::string z = dir.write("z.text", "x");
  EXPECT_EQ(find({dir / "d"}).paths, (std::vector{a, b, b10}));
  EXPECT_EQ(find({dir / "d/b*.txt"}).paths, (std::vector{b, b10}));
  EXPECT_EQ(find({z, dir / "d/?.txt"}).paths, (std::vector{z, a, b}));
  EXPECT_EQ(find({dir / "d"}).kind, CorpusKind::kText);
  // A name with a pattern's characters is itself if such a file exists.
  const std::string odd = dir.write("[a].txt", "x");
  EXPECT_EQ(find({odd}).paths, std::vector{odd});
}

TEST(FindCorpusFiles, KnowsShardsByTheirSuffix) {
  const TempDir dir;
  const std::string second = dir.write("s_000001.bin", "x");
  const std::string first = dir.write("s_000000.bin", "x");
  const CorpusFiles found = find({dir.path()});
  EXPECT_EQ(found.kind, CorpusKind::kShards);
  EXPECT_EQ(found.paths, (std::vector{first, second}));
}

TEST(FindCorpusFiles, RefusesEntriesThatNameNothing) {
  const TempDir dir;
  dir.write("d/notes.md", "x");
  expect_error<DataError>([&] { find({}); }, {"no data files"});
  expect_error<DataError>([&] { find({""}); }, {"empty path"});
  expect_error<DataError>([&] { find({dir / "d"}); }, {dir / "d", "no .txt or .bin file"});
  expect_error<DataError>([&] { find({dir / "d/*.txt"}); }, {"no file matches", "d/*.txt"});
}

TEST(FindCorpusFiles, RefusesMatchesThatAreNoFiles) {
  const TempDir dir;
  dir.write("d/a.txt", "x");
  std::filesystem::create_directories(dir / "d/folder.txt");
  EXPECT_EQ(find({dir / "d"}).paths, std::vector{dir / "d/a.txt"});
  EXPECT_EQ(find({dir / "d/*.txt"}).paths, std::vector{dir / "d/a.txt"});
  const auto refuse = [&](const std::string& path) {
    for (const std::string& entry : {dir / "d", dir / "d/*.txt"}) {
      expect_error<DataError>([&] { find({entry}); }, {path, "not a readable file"});
    }
    std::filesystem::remove(path);
  };
  std::filesystem::create_symlink(dir / "gone.txt", dir / "d/link.txt");
  refuse(dir / "d/link.txt");
  ASSERT_EQ(::mkfifo((dir / "d/pipe.txt").c_str(), 0600), 0);
  refuse(dir / "d/pipe.txt");
}

TEST(SharedFile, KnowsAFileUnderAnyName) {
  const TempDir dir;
  const std::string a = dir.write("a.txt", "x");
  const std::string b = dir.write("b.txt", "x");
  std::filesystem::create_symlink(a, dir / "link.txt");
  std::filesystem::create_hard_link(a, dir / "hard.txt");
  const auto shared = [&](const std::string& path) {
    return shared_file({.paths = {b, path}}, {.paths = {a}});
  };
  for (const std::string& name : {a, dir / "./a.txt", dir / "link.txt", dir / "hard.txt"}) {
    EXPECT_EQ(shared(name), name);
  }
  EXPECT_EQ(shared(dir.write("c.txt", "x")), std::nullopt);
}

TEST(FindCorpusFiles, RefusesMixturesAndRepetitions) {
  const TempDir dir;
  const std::string text = dir.write("a.txt", "x");
  const std::string shard = dir.write("a.bin", "x");
  expect_error<DataError>([&] { find({dir.path()}); }, {"a.txt", "a.bin", "mixed"});
  expect_error<DataError>([&] { find({text, dir / "*.txt"}); }, {"a.txt", "named twice"});
  expect_error<DataError>([&] { find({shard, dir / "./a.bin"}); }, {"a.bin", "named twice"});
}

}  // namespace
}  // namespace carousel
