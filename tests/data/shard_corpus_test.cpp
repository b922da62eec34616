#include "data/shard_corpus.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "core/base/error.h"
#include "data/shard_writer.h"
#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"

namespace carousel {
namespace {

using testing::expect_error;
using testing::read_file;
using testing::TempDir;
using Tokens = std::vector<std::int32_t>;

/// A shard written by hand, so that writer and reader are checked apart.
std::string shard_bytes(std::int32_t magic, std::int32_t version, std::int32_t count,
                        const std::vector<std::uint16_t>& tokens) {
  std::vector<std::int32_t> header(256);
  header[0] = magic;
  header[1] = version;
  header[2] = count;
  std::string bytes(reinterpret_cast<const char*>(header.data()), 1024);
  bytes.append(reinterpret_cast<const char*>(tokens.data()), 2 * tokens.size());
  return bytes;
}
std::string shard_bytes(const std::vector<std::uint16_t>& tokens) {
  return shard_bytes(20240520, 1, static_cast<std::int32_t>(tokens.size()), tokens);
}

/// Number i is 7·i mod 1009.
Tokens some_tokens(std::size_t n) {
  Tokens tokens(n);
  for (std::size_t i = 0; i < n; ++i) tokens[i] = static_cast<std::int32_t>(i * 7 % 1009);
  return tokens;
}

ShardCorpus open(const std::vector<std::string>& paths, std::int32_t vocab_size = 50257) {
  return ShardCorpus(paths, vocab_size);
}

TEST(ShardCorpus, ReadsAcrossShards) {
  const TempDir dir;
  const ShardCorpus corpus =
      open({dir.write("0.bin", shard_bytes({1, 2, 3})), dir.write("1.bin", shard_bytes({4})),
            dir.write("2.bin", shard_bytes({5, 6, 50256, 8}))});
  EXPECT_EQ(corpus.size(), 8);
  const Tokens want = {1, 2, 3, 4, 5, 6, 50256, 8};
  for (std::size_t begin = 0; begin < want.size(); ++begin) {
    for (std::size_t n = 0; begin + n <= want.size(); ++n) {
      Tokens tokens(n);
      corpus.read(static_cast<std::int64_t>(begin), tokens);
      EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(),
                             want.begin() + static_cast<std::ptrdiff_t>(begin)));
    }
  }
  Tokens beyond(2);
  EXPECT_THROW(corpus.read(7, beyond), InternalError);
  EXPECT_TRUE(corpus.document_starts().empty());
}

TEST(ShardCorpus, NamesTheShardAndOffsetOfAForeignToken) {
  const TempDir dir;
  const ShardCorpus corpus = open(
      {dir.write("0.bin", shard_bytes({1, 2, 3})), dir.write("1.bin", shard_bytes({4, 5, 101, 6}))},
      101);
  Tokens tokens(5);
  corpus.read(0, tokens);
  expect_error<DataError>([&] { corpus.read(2, tokens); },
                          {"1.bin", "token 101", "offset 1028", "vocabulary of 101"});
}

TEST(ShardCorpus, AllSixteenBitsAreTokens) {
  const TempDir dir;
  const std::string path = dir.write("0.bin", shard_bytes({65535, 0}));
  Tokens tokens(2);
  open({path}, 65536).read(0, tokens);
  EXPECT_EQ(tokens, (Tokens{65535, 0}));
  expect_error<DataError>([&] { open({path}, 65535).read(0, tokens); }, {"token 65535"});
}

TEST(ShardCorpus, ChecksTheHeader) {
  const TempDir dir;
  const auto refuse = [&](const std::string& bytes, std::initializer_list<std::string> parts) {
    const std::string path = dir.write("s.bin", bytes);
    expect_error<DataError>([&] { open({path}); }, parts);
  };
  refuse("", {"s.bin", "0 bytes", "header of 1024"});
  refuse(shard_bytes({}).substr(0, 1023), {"1023 bytes", "header of 1024"});
  refuse(shard_bytes(123, 1, 2, {1, 2}), {"s.bin", "magic number 123", "offset 0", "20240520"});
  refuse(shard_bytes(20240801, 7, 2, {1, 2}), {"20240801", "32-bit tokens"});
  refuse(shard_bytes(static_cast<std::int32_t>(__builtin_bswap32(20240520)), 1, 2, {1, 2}),
         {"s.bin", "big-endian"});
  refuse(shard_bytes(20240520, 2, 2, {1, 2}), {"s.bin", "version 2", "offset 4", "expected 1"});
  refuse(shard_bytes(20240520, 1, 0, {}), {"s.bin", "token count 0", "offset 8"});
  refuse(shard_bytes(20240520, 1, -5, {1, 2}), {"token count -5"});
}

TEST(ShardCorpus, ChecksTheSize) {
  const TempDir dir;
  const std::string whole = shard_bytes({1, 2, 3});
  const std::string cut = dir.write("cut.bin", whole.substr(0, whole.size() - 1));
  expect_error<DataError>([&] { open({cut}); },
                          {"cut.bin", "offset 1029", "3 tokens", "offset 1030"});
  const std::string longer = dir.write("long.bin", whole + "xyz");
  expect_error<DataError>([&] { open({longer}); }, {"long.bin", "3 trailing bytes", "offset 1030"});
  // The largest count a header can promise must not overflow the size.
  const std::string huge = dir.write("huge.bin", shard_bytes(20240520, 1, INT32_MAX, {1}));
  expect_error<DataError>([&] { open({huge}); }, {"huge.bin", "2147483647 tokens"});
  expect_error<DataError>([&] { open({dir / "missing.bin"}); }, {"missing.bin"});
}

TEST(ShardWriter, WritesTheFormat) {
  const TempDir dir;
  ShardWriter writer(dir / "train", 65536);
  writer.append(Tokens{1, 65535, 3});
  EXPECT_EQ(writer.finish(), std::vector{dir / "train_000000.bin"});
  EXPECT_EQ(read_file(dir / "train_000000.bin"), shard_bytes({1, 65535, 3}));
}

TEST(ShardWriter, SplitsAtTheLimit) {
  const TempDir dir;
  const Tokens tokens = some_tokens(100'003);
  ShardWriter writer(dir / "t", 1009, 40'000);
  // Appends of odd sizes, none of which ends with a shard.
  for (std::size_t begin = 0; begin < tokens.size();) {
    const std::size_t n = std::min<std::size_t>(7919, tokens.size() - begin);
    writer.append(std::span(tokens).subspan(begin, n));
    begin += n;
  }
  const auto paths = writer.finish();
  ASSERT_EQ(paths.size(), 3u);
  EXPECT_EQ(std::filesystem::file_size(paths[0]), 1024u + 80'000u);
  EXPECT_EQ(std::filesystem::file_size(paths[2]), 1024u + 2u * 20'003u);
  Tokens back(tokens.size());
  open(paths, 1009).read(0, back);
  EXPECT_EQ(back, tokens);
}

TEST(ShardWriter, LeavesNoEmptyShardAtAnExactMultiple) {
  const TempDir dir;
  ShardWriter writer(dir / "t", 1009, 50);
  writer.append(some_tokens(100));
  EXPECT_EQ(writer.finish().size(), 2u);
}

TEST(ShardWriter, LeavesNothingBehindWithoutFinish) {
  const TempDir dir;
  { ShardWriter(dir / "t", 1009).append(some_tokens(10)); }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(ShardWriter, RefusesWhatWouldDamageACorpus) {
  const TempDir dir;
  dir.write("t_000007.bin", "old");
  expect_error<DataError>([&] { ShardWriter(dir / "t", 10); }, {"t_000007.bin", "exists"});
  expect_error<DataError>([&] { ShardWriter(dir / "none/t", 10); }, {"none/t", "cannot list"});
  expect_error<DataError>([&] { ShardWriter(dir / "u", 10).finish(); }, {"u_", "no tokens"});
  expect_error<DataError>(
      [&] {
        ShardWriter(dir / "v", 10).append(Tokens{3, 10});
      },
      {"v_000000.bin", "token 10", "vocabulary of 10"});
  expect_error<DataError>([&] { ShardWriter(dir / "v", 10).append(Tokens{-1}); }, {"token -1"});
  EXPECT_THROW(ShardWriter(dir / "w", 65537), InternalError);
  EXPECT_THROW(ShardWriter(dir / "w", 10, 0), InternalError);
}

}  // namespace
}  // namespace carousel
