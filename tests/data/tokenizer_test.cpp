#include "data/tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "data/byte_tokenizer.h"
#include "data/char_tokenizer.h"
#include "data/id_tokenizer.h"
#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"

namespace carousel {
namespace {

using nlohmann::json;
using testing::expect_error;
using testing::TempDir;
using Tokens = std::vector<std::int32_t>;

std::string every_byte() {
  std::string text;
  for (int i = 0; i < 256; ++i) text.push_back(static_cast<char>(i));
  return text;
}

std::unique_ptr<CharTokenizer> char_tokenizer_for(std::string_view text) {
  const TempDir dir;
  const std::string path = dir.write("input.txt", text);
  return CharTokenizer::from_files(std::span(&path, 1));
}

TEST(ByteTokenizer, EncodesEveryByteAsItself) {
  const ByteTokenizer tokenizer;
  const std::string text = every_byte();
  const Tokens tokens = tokenizer.encode(text, {});
  for (int i = 0; i < 256; ++i) EXPECT_EQ(tokens[static_cast<std::size_t>(i)], i);
  EXPECT_EQ(tokenizer.decode(tokens), text);
  EXPECT_EQ(tokenizer.vocab_size(), 257);
  EXPECT_EQ(tokenizer.document_token(), 256);
  EXPECT_EQ(tokenizer.decode(Tokens{256, 'a', 256}), "a");
}

TEST(CharTokenizer, SortsItsVocabularyByCodePoint) {
  const auto tokenizer = char_tokenizer_for("zé\na😀z");
  EXPECT_EQ(tokenizer->vocab_size(), 5);
  EXPECT_EQ(tokenizer->encode("\nazé😀", {}), (Tokens{0, 1, 2, 3, 4}));
  EXPECT_EQ(tokenizer->decode(Tokens{4, 3, 0}), "😀é\n");
  EXPECT_EQ(tokenizer->document_token(), std::nullopt);
}

TEST(CharTokenizer, NamesACharacterOutsideTheVocabulary) {
  const auto tokenizer = char_tokenizer_for("abé");
  expect_error<DataError>(
      [&] {
        tokenizer->encode("éaxb", {"val.txt", 100});
      },
      {"val.txt", "'x' (U+0078)", "byte 103", "vocabulary of 3", "byte"});
  expect_error<DataError>([&] { tokenizer->encode("a😀", {}); }, {"'😀' (U+1F600)", "byte 1"});
}

TEST(CharTokenizer, NamesTheOffsetOfWhatIsNoText) {
  const auto tokenizer = char_tokenizer_for("ab");
  expect_error<DataError>(
      [&] {
        tokenizer->encode(std::string_view("ab\0", 3), {"f.txt", 7});
      },
      {"f.txt", "NUL", "offset 9", "binary"});
  expect_error<DataError>(
      [&] {
        tokenizer->encode("a\xFF", {"f.txt", 0});
      },
      {"f.txt", "0xFF", "offset 1", "UTF-8"});
  expect_error<DataError>([&] { char_tokenizer_for("abc\xC3"); },
                          {"input.txt", "0xC3", "offset 3", "UTF-8"});
  expect_error<DataError>([&] { char_tokenizer_for(""); }, {"input.txt", "empty"});
}

TEST(IdTokenizer, ReadsAndPrintsIds) {
  const IdTokenizer tokenizer(50257, 50256, "test");
  EXPECT_EQ(tokenizer.encode(" 0 50256\n17\t", {}), (Tokens{0, 50256, 17}));
  EXPECT_EQ(tokenizer.encode("", {}), Tokens{});
  EXPECT_EQ(tokenizer.encode(" \n", {}), Tokens{});
  EXPECT_EQ(tokenizer.decode(Tokens{0, 50256, 17}), "0 50256 17");
  StreamDecoder decoder(tokenizer, /*at_start=*/false);
  EXPECT_EQ(decoder.push(5), " 5");
}

TEST(IdTokenizer, RefusesWhatIsNoId) {
  const IdTokenizer tokenizer(100, std::nullopt, "test");
  for (const char* text : {"7 x", "7 100", "7 -1", "7 1.5", "7 99999999999", "7 8x"}) {
    expect_error<DataError>(
        [&] {
          tokenizer.encode(text, {"prompt", 0});
        },
        {"prompt", "at byte 2", "[0, 100)"});
  }
  expect_error<DataError>([] { IdTokenizer(0, std::nullopt, "here"); },
                          {"here", "vocab_size is 0"});
  expect_error<DataError>([] { IdTokenizer(10, 10, "here"); }, {"here", "document_token 10"});
}

TEST(Tokenizer, DecodingRefusesForeignTokens) {
  const ByteTokenizer tokenizer;
  expect_error<DataError>([&] { tokenizer.decode(Tokens{257}); }, {"token 257", "byte", "257"});
  expect_error<DataError>([&] { tokenizer.decode(Tokens{'a', -1}); }, {"token -1"});
}

TEST(StreamDecoder, EmitsWholeCharactersOnly) {
  const ByteTokenizer tokenizer;
  StreamDecoder decoder(tokenizer);
  std::vector<std::string> parts;
  for (const std::int32_t token : tokenizer.encode("aé😀", {})) parts.push_back(decoder.push(token));
  EXPECT_EQ(parts, (std::vector<std::string>{"a", "", "é", "", "", "", "😀"}));
  EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, ReplacesBytesThatAreNoCharacter) {
  const ByteTokenizer tokenizer;
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push(0xFF), "\uFFFD");
  EXPECT_EQ(decoder.push(0xE2), "");
  EXPECT_EQ(decoder.push('a'), "\uFFFDa");
  EXPECT_EQ(decoder.push(0xF0), "");
  EXPECT_EQ(decoder.finish(), "\uFFFD");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(TokenizerJson, RoundTripsThroughAFile) {
  const TempDir dir;
  const std::string path = dir / "tokenizer.json";
  save_tokenizer(ByteTokenizer(), path);
  EXPECT_EQ(load_tokenizer(path)->kind(), "byte");

  save_tokenizer(*char_tokenizer_for("\n\"\\é😀\x01"), path);
  const auto chars = load_tokenizer(path);
  EXPECT_EQ(chars->kind(), "char");
  EXPECT_EQ(chars->decode(Tokens{0, 1, 2, 3, 4, 5}), "\x01\n\"\\é😀");

  save_tokenizer(IdTokenizer(11, 3, ""), path);
  EXPECT_EQ(load_tokenizer(path)->vocab_size(), 11);
  EXPECT_EQ(load_tokenizer(path)->document_token(), 3);
  save_tokenizer(IdTokenizer(11, std::nullopt, ""), path);
  EXPECT_EQ(load_tokenizer(path)->document_token(), std::nullopt);
}

TEST(TokenizerJson, NamesWhatIsWrong) {
  const auto load = [](const json& j) { return [j] { tokenizer_from_json(j, "tok.json"); }; };
  expect_error<DataError>(load(json::array()), {"tok.json", "expected a JSON object", "array"});
  expect_error<DataError>(load(json::object()), {"tok.json", "'kind' is missing"});
  expect_error<DataError>(load({{"kind", 3}}), {"'kind' must be a string", "number"});
  expect_error<DataError>(load({{"kind", "bpe"}}), {"tok.json", "'bpe'", "sentencepiece"});
  expect_error<DataError>(load({{"kind", "char"}}), {"'characters' is missing"});
  expect_error<DataError>(load({{"kind", "char"}, {"characters", ""}}), {"no characters"});
  expect_error<DataError>(load({{"kind", "char"}, {"characters", "acb"}}),
                          {"ascending", "entry 2", "'b'"});
  expect_error<DataError>(load({{"kind", "char"}, {"characters", "aa"}}), {"ascending", "entry 1"});
  expect_error<DataError>(load({{"kind", "char"}, {"characters", "a\xFF"}}),
                          {"tok.json", "'characters'", "offset 1"});
  expect_error<DataError>(load({{"kind", "none"}, {"vocab_size", 0}}), {"'vocab_size'", "found 0"});
  expect_error<DataError>(load({{"kind", "none"}, {"vocab_size", 1.5}}), {"'vocab_size'", "1.5"});
  expect_error<DataError>(load({{"kind", "none"}, {"vocab_size", UINT64_MAX}}), {"'vocab_size'"});
  expect_error<DataError>(load({{"kind", "none"}, {"vocab_size", 5}, {"document_token", 5}}),
                          {"'document_token'", "[0, 4]"});
  expect_error<DataError>(load({{"kind", "sentencepiece"}, {"model", "?"}}), {"'model'", "Base64"});
  expect_error<DataError>(load({{"kind", "sentencepiece"}, {"model", ""}}), {"0 bytes"});
}

TEST(TokenizerJson, KnowsTheFormatOfHuggingFace) {
  expect_error<DataError>(
      [] {
        tokenizer_from_json({{"version", "1.0"}, {"model", {{"type", "BPE"}}}}, "tok.json");
      },
      {"tok.json", "Hugging Face", ".model", "data.tokenizer: none"});
}

// Printing it would overflow the stack.
TEST(TokenizerJson, RefusesDepthWithoutFollowingIt) {
  const TempDir dir;
  constexpr std::size_t kDepth = 2'000'000;
  const std::string deep = std::string(kDepth, '[') + std::string(kDepth, ']');
  const std::string path =
      dir.write("tokenizer.json", R"({"kind": "none", "vocab_size": )" + deep + "}");
  expect_error<DataError>([&] { load_tokenizer(path); }, {"'vocab_size'", "found array"});
}

TEST(TokenizerJson, NamesAFileThatIsNotJson) {
  const TempDir dir;
  expect_error<DataError>([&] { load_tokenizer(dir.write("t.json", "{\"kind\": ")); },
                          {"t.json", "not JSON"});
  expect_error<DataError>([&] { load_tokenizer(dir / "missing.json"); }, {"missing.json"});
}

TEST(CharTokenizer, RefusesValuesThatAreNoCodePoints) {
  for (const char32_t c : {char32_t{0}, char32_t{0xD800}, char32_t{0x110000}}) {
    expect_error<DataError>([&] { CharTokenizer({c}, "here"); }, {"here", "not a character"});
  }
}

}  // namespace
}  // namespace carousel
