#include "data/text_corpus.h"

#include <gtest/gtest.h>

#include <numeric>

#include "core/base/error.h"
#include "data/byte_tokenizer.h"
#include "data/char_tokenizer.h"
#include "data/id_tokenizer.h"
#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"

namespace carousel {
namespace {

using testing::expect_error;
using testing::TempDir;
using Tokens = std::vector<std::int32_t>;

Tokens all_tokens(const Corpus& corpus) {
  Tokens tokens(static_cast<std::size_t>(corpus.size()));
  corpus.read(0, tokens);
  return tokens;
}
Tokens starts(const Corpus& corpus) {
  return {corpus.document_starts().begin(), corpus.document_starts().end()};
}
TextCorpus byte_corpus(const std::vector<std::string>& paths, bool mark) {
  return TextCorpus(paths, ByteTokenizer(), mark);
}

TEST(TextCorpus, JoinsFilesAndKnowsWhereTheyBegin) {
  const TempDir dir;
  const std::vector paths = {dir.write("a.txt", "abc"), dir.write("b.txt", "de")};
  const TextCorpus plain = byte_corpus(paths, false);
  EXPECT_EQ(all_tokens(plain), (Tokens{'a', 'b', 'c', 'd', 'e'}));
  EXPECT_EQ(starts(plain), (Tokens{0, 3}));
  const TextCorpus marked = byte_corpus(paths, true);
  EXPECT_EQ(all_tokens(marked), (Tokens{256, 'a', 'b', 'c', 256, 'd', 'e'}));
  EXPECT_EQ(starts(marked), (Tokens{0, 4}));
  Tokens part(3);
  marked.read(2, part);
  EXPECT_EQ(part, (Tokens{'b', 'c', 256}));
  EXPECT_EQ(marked.describe(),
            "7 tokens of a vocabulary of 257 from 2 files, " + paths[0] + " to " + paths[1]);
}

TEST(TextCorpus, EncodesLongFilesInPartsWithoutCuttingCharacters) {
  const TempDir dir;
  // Parts end at 1 MiB: with 3-byte characters and one byte in front, never between characters.
  std::string text = "a";
  while (text.size() < (std::size_t{5} << 19)) text += "€";
  const std::vector paths = {dir.write("a.txt", text)};
  const auto tokenizer = CharTokenizer::from_files(paths);
  const TextCorpus corpus(paths, *tokenizer, false);
  EXPECT_EQ(corpus.size(), static_cast<std::int64_t>(1 + (text.size() - 1) / 3));
  EXPECT_EQ(tokenizer->decode(all_tokens(corpus)), text);
}

TEST(TextCorpus, NamesOffsetsBeyondTheFirstPart) {
  const TempDir dir;
  std::string text(std::size_t{3} << 20, 'a');
  const std::vector good = {dir.write("good.txt", "ab")};
  const auto tokenizer = CharTokenizer::from_files(good);
  text[2'500'000] = 'x';
  const std::vector paths = {dir.write("bad.txt", text)};
  expect_error<DataError>([&] { TextCorpus(paths, *tokenizer, false); },
                          {"bad.txt", "'x'", "byte 2500000"});
  text[2'500'000] = '\0';
  dir.write("bad.txt", text);
  expect_error<DataError>([&] { TextCorpus(paths, *tokenizer, false); },
                          {"bad.txt", "NUL", "offset 2500000"});
  // A run of continuation bytes over a part's end is bad text, not a reason to loop.
  text.replace((std::size_t{1} << 20) - 8, 16, std::string(16, '\x80'));
  dir.write("bad.txt", text);
  expect_error<DataError>([&] { TextCorpus(paths, *tokenizer, false); },
                          {"bad.txt", "0x80", "offset 1048568"});
}

TEST(TextCorpus, KeepsLargeVocabularies) {
  const TempDir dir;
  const std::vector paths = {dir.write("ids.txt", "65536 0 65535 7")};
  for (const std::int32_t vocab : {65537, 70000}) {
    const TextCorpus corpus(paths, IdTokenizer(vocab, 5, "test"), true);
    EXPECT_EQ(all_tokens(corpus), (Tokens{5, 65536, 0, 65535, 7}));
  }
  const std::vector small = {dir.write("small.txt", "0 65535")};
  EXPECT_EQ(all_tokens(TextCorpus(small, IdTokenizer(65536, std::nullopt, "test"), true)),
            (Tokens{0, 65535}));
}

TEST(TextCorpus, RefusesEmptyAndMissingFiles) {
  const TempDir dir;
  const std::string good = dir.write("a.txt", "abc");
  expect_error<DataError>(
      [&] {
        byte_corpus({good, dir.write("e.txt", "")}, true);
      },
      {"e.txt", "empty"});
  expect_error<DataError>([&] { byte_corpus({dir / "missing.txt"}, true); }, {"missing.txt"});
  const std::vector blank = {dir.write("blank.txt", " \n")};
  expect_error<DataError>([&] { TextCorpus(blank, IdTokenizer(5, std::nullopt, ""), true); },
                          {"blank.txt", "no tokens"});
}

TEST(CorpusSlice, ShiftsPositionsAndDocumentStarts) {
  const TempDir dir;
  const std::vector paths = {dir.write("a.txt", "abc"), dir.write("b.txt", "de"),
                             dir.write("c.txt", "fgh")};
  const auto corpus = std::make_shared<TextCorpus>(paths, ByteTokenizer(), false);
  const CorpusSlice slice(corpus, 2, 6);
  EXPECT_EQ(all_tokens(slice), (Tokens{'c', 'd', 'e', 'f'}));
  EXPECT_EQ(starts(slice), (Tokens{1, 3}));
  EXPECT_EQ(slice.vocab_size(), 257);
  Tokens too_long(5);
  EXPECT_THROW(slice.read(0, too_long), InternalError);
  EXPECT_THROW(corpus->read(4, too_long), InternalError);
  EXPECT_THROW(CorpusSlice(corpus, 2, 9), InternalError);
}

}  // namespace
}  // namespace carousel
