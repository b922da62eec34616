#include "data/sentencepiece_tokenizer.h"

#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "data/base64.h"
#include "data/utf8.h"
#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"

namespace carousel {
namespace {

using testing::expect_error;
using testing::read_file;
using testing::TempDir;

/// The bytes of a small model trained on the spot.
std::string train_model(const std::string& type, const std::string& more) {
  const TempDir dir;
  std::string text;
  for (int i = 0; i < 60; ++i) {
    text += "the quick brown fox jumps over the lazy dog " + std::to_string(i) + "\n";
  }
  const std::string input = dir.write("input.txt", text);
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      "--input=" + input + " --model_prefix=" + (dir / "m") + " --model_type=" + type +
      " --num_threads=1 --minloglevel=2 --hard_vocab_limit=false " + more);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return read_file(dir / "m.model");
}

const std::string& bpe_model() {
  static const std::string model =
      train_model("bpe",
                  "--vocab_size=340 --byte_fallback=true --normalization_rule_name=identity "
                  "--remove_extra_whitespaces=false");
  return model;
}
const std::string& unigram_model() {
  static const std::string model = train_model("unigram", "--vocab_size=60");
  return model;
}

TEST(SentencePieceTokenizer, EncodesAsTheLibraryDoes) {
  for (const std::string& model : {bpe_model(), unigram_model()}) {
    sentencepiece::SentencePieceProcessor library;
    ASSERT_TRUE(library.LoadFromSerializedProto(model).ok());
    const SentencePieceTokenizer tokenizer(model, "test");
    const std::string text = "the lazy fox 17 jumps";
    const auto tokens = tokenizer.encode(text, {});
    EXPECT_EQ(tokens, library.EncodeAsIds(text));
    EXPECT_EQ(tokenizer.decode(tokens), library.DecodeIds(tokens));
    EXPECT_EQ(tokenizer.decode(tokens), text);
    EXPECT_EQ(tokenizer.vocab_size(), library.GetPieceSize());
    EXPECT_EQ(tokenizer.document_token(), library.bos_id());
  }
}

TEST(SentencePieceTokenizer, ByteFallbackMakesItExact) {
  const SentencePieceTokenizer tokenizer(bpe_model(), "test");
  for (const std::string text : {"fox\n\tdog  é😀!", "  the dog", "ü"}) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, {})), text);
  }
}

TEST(SentencePieceTokenizer, StreamsTheSameText) {
  const SentencePieceTokenizer tokenizer(bpe_model(), "test");
  const std::string text = "the quick 😀 dog\né";
  StreamDecoder decoder(tokenizer);
  std::string streamed = decoder.push(*tokenizer.document_token());
  for (const auto token : tokenizer.encode(text, {})) {
    streamed += decoder.push(token);
    EXPECT_EQ(unfinished_utf8(streamed), 0u);
  }
  EXPECT_EQ(streamed + decoder.finish(), text);
  // A continuation keeps the space of its first word.
  StreamDecoder continuation(tokenizer, /*at_start=*/false);
  std::string rest;
  for (const auto token : tokenizer.encode("fox", {})) rest += continuation.push(token);
  EXPECT_EQ(rest, " fox");
}

TEST(SentencePieceTokenizer, UnknownCharactersDecodeAsTheLibraryDoes) {
  const SentencePieceTokenizer tokenizer(unigram_model(), "test");
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.LoadFromSerializedProto(unigram_model()).ok());
  const auto tokens = tokenizer.encode("the 漢 dog", {});
  EXPECT_EQ(tokenizer.decode(tokens), library.DecodeIds(tokens));
}

TEST(SentencePieceTokenizer, RefusesBinaryAndHugeDocuments) {
  const SentencePieceTokenizer tokenizer(bpe_model(), "test");
  expect_error<DataError>(
      [&] {
        tokenizer.encode("the \xFF", {"f.txt", 0});
      },
      {"f.txt", "0xFF", "offset 4"});
  expect_error<DataError>(
      [&] {
        tokenizer.encode(std::string_view("a\0b", 3), {"f.txt", 0});
      },
      {"f.txt", "NUL", "offset 1"});
  const std::string huge(SentencePieceTokenizer::kMaxDocumentBytes + 1, 'a');
  expect_error<DataError>([&] { tokenizer.encode(huge, {"f.txt", 0}); }, {"f.txt", "split"});
}

TEST(SentencePieceTokenizer, RoundTripsThroughJson) {
  const SentencePieceTokenizer tokenizer(bpe_model(), "test");
  const auto back = tokenizer_from_json(tokenizer.to_json(), "tokenizer.json");
  EXPECT_EQ(back->kind(), "sentencepiece");
  EXPECT_EQ(back->encode("the dog"), tokenizer.encode("the dog", {}));
}

TEST(SentencePieceTokenizer, RefusesDamagedModels) {
  const TempDir dir;
  const std::string& model = bpe_model();
  const std::string cut = dir.write("cut.model", model.substr(0, model.size() / 2 + 1));
  expect_error<DataError>([&] { SentencePieceTokenizer::from_file(cut); }, {"cut.model"});
  const std::string text = dir.write("text.model", "this is no model");
  expect_error<DataError>([&] { SentencePieceTokenizer::from_file(text); },
                          {"text.model", "not a usable SentencePiece model"});
  const std::string empty = dir.write("empty.model", "");
  expect_error<DataError>([&] { SentencePieceTokenizer::from_file(empty); },
                          {"empty.model", "0 bytes"});
  expect_error<DataError>([&] { SentencePieceTokenizer::from_file(dir / "missing.model"); },
                          {"missing.model"});
  expect_error<DataError>(
      [&] {
        tokenizer_from_json({{"kind", "sentencepiece"}, {"model", base64_encode("no model")}},
                            "tokenizer.json");
      },
      {"tokenizer.json", "not a usable"});
}

}  // namespace
}  // namespace carousel
