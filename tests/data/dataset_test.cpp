#include "data/dataset.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "data/byte_tokenizer.h"
#include "data/char_tokenizer.h"
#include "data/shard_writer.h"
#include "tests/support/errors.h"
#include "tests/support/temp_dir.h"

namespace carousel {
namespace {

using testing::expect_error;
using testing::TempDir;
using Tokens = std::vector<std::int32_t>;

DataConfig config_for(std::vector<std::string> train, const std::string& tokenizer) {
  DataConfig config;
  config.train = std::move(train);
  config.tokenizer = tokenizer;
  config.seq_len = 4;
  config.batch_size = 2;
  return config;
}

/// 1000 letters, of which the last part alone has a 'z'.
std::string letters() {
  std::string text;
  for (int i = 0; i < 1000; ++i) text.push_back(static_cast<char>('a' + i * i % 23));
  text.back() = 'z';
  return text;
}

std::vector<std::string> write_shards(const TempDir& dir, std::int32_t vocab_size,
                                      const Tokens& tokens) {
  ShardWriter writer(dir / "s", vocab_size);
  writer.append(tokens);
  return writer.finish();
}

std::string all_windows(const Dataset& data) {
  std::string text;
  for (std::int64_t b = 0; b < data.validation->num_batches(); ++b) {
    const Batch batch = data.validation->batch(b, 0, 2);
    for (std::int64_t row = 0; row < 2; ++row) {
      const auto targets = batch.targets.slice(row, row + 1).to_vector<std::int32_t>();
      if (targets[0] >= 0) text += data.tokenizer->decode(targets);
    }
  }
  return text;
}

TEST(OpenDataset, HoldsOutTheEndOfTheTrainingText) {
  const TempDir dir;
  DataConfig config = config_for({dir.write("a.txt", letters())}, "char");
  config.val.fraction = 0.1;
  const Dataset data = open_dataset(config, {});
  // The vocabulary knows the 'z' of the held-out part.
  EXPECT_EQ(data.tokenizer->encode("z").size(), 1u);
  EXPECT_EQ(data.train->vocab_size(), data.tokenizer->vocab_size());
  EXPECT_NE(data.train->describe().find("900 tokens, [0, 900) of 1000"), std::string::npos);
  EXPECT_NE(data.validation->describe().find("100 tokens, [900, 1000)"), std::string::npos);
  EXPECT_EQ(all_windows(data), letters().substr(901, 96));
}

TEST(OpenDataset, TakesValidationFiles) {
  const TempDir dir;
  DataConfig config = config_for({dir.write("a.txt", letters())}, "byte");
  config.val.files = {dir.write("val/b.txt", "0123456789")};
  EXPECT_EQ(all_windows(open_dataset(config, {})), "12345678");
  config.tokenizer = "char";
  expect_error<DataError>([&] { open_dataset(config, {}); }, {"b.txt", "'0'", "byte 0"});
}

TEST(CheckHeldOut, RefusesToValidateOnTrainingFiles) {
  const TempDir dir;
  DataConfig config = config_for({dir.write("d/a.txt", "x"), dir.write("d/b.txt", "x")}, "byte");
  config.val.files = {dir / "d/*.txt"};
  expect_error<UsageError>([&] { check_held_out(config); }, {"data.val: ", "d/a.txt", "fraction"});
  config.val.files = {dir.write("c.txt", "x")};
  EXPECT_NO_THROW(check_held_out(config));
  config.val.files = {dir / "missing.txt"};
  EXPECT_NO_THROW(check_held_out(config));
  config.val = {.fraction = 0.1};
  EXPECT_NO_THROW(check_held_out(config));
}

TEST(OpenDataset, HasNoValidationUnlessConfigured) {
  const TempDir dir;
  const Dataset data = open_dataset(config_for({dir.write("a.txt", letters())}, "byte"), {});
  EXPECT_EQ(data.validation, nullptr);
  EXPECT_EQ(data.train->num_batches(), BatchSource::kEndless);
}

TEST(OpenDataset, MarksDocumentsIfBoundariesAreOn) {
  const TempDir dir;
  DataConfig config = config_for({dir.write("a.txt", "aaaa"), dir.write("b.txt", "bbbb")}, "byte");
  EXPECT_FALSE(open_dataset(config, {}).train->batch(0, 0, 2).reset.defined());
  config.document_boundaries = true;
  config.seq_len = 9;
  const Batch batch = open_dataset(config, {}).train->batch(0, 0, 1);
  EXPECT_EQ(batch.tokens.to_vector<std::int32_t>(),
            (Tokens{256, 'a', 'a', 'a', 'a', 256, 'b', 'b', 'b'}));
  EXPECT_EQ(batch.reset.to_vector<std::uint8_t>(),
            (std::vector<std::uint8_t>{1, 0, 0, 0, 0, 1, 0, 0, 0}));
  EXPECT_EQ(batch.target_count, 9);
}

TEST(OpenDataset, ReadsShards) {
  const TempDir dir;
  const auto paths = write_shards(dir, 50257, {50256, 1, 2, 3, 50256, 4, 5, 6, 7});
  DataConfig config = config_for({dir.path()}, "none");
  config.seq_len = 8;
  config.document_boundaries = true;
  const Dataset data = open_dataset(config, {.vocab_size = 50304});
  EXPECT_EQ(data.tokenizer->document_token(), 50256);
  EXPECT_EQ(data.train->vocab_size(), 50304);
  EXPECT_EQ(data.train->batch(0, 0, 1).reset.to_vector<std::uint8_t>(),
            (std::vector<std::uint8_t>{1, 0, 0, 0, 1, 0, 0, 0}));
  config.document_token = 3;
  EXPECT_EQ(open_dataset(config, {.vocab_size = 50304})
                .train->batch(0, 0, 1)
                .reset.to_vector<std::uint8_t>(),
            (std::vector<std::uint8_t>{0, 0, 0, 1, 0, 0, 0, 0}));
  // A vocabulary that the shard's tokens exceed shows when they are read.
  config.document_token = 0;
  const Dataset small = open_dataset(config, {.vocab_size = 50256});
  expect_error<DataError>([&] { small.train->batch(0, 0, 1); }, {paths[0], "token 50256"});
}

TEST(OpenDataset, RefusesShardsItCannotInterpret) {
  const TempDir dir;
  const auto paths = write_shards(dir, 100, Tokens(50, 7));
  expect_error<UsageError>([&] { open_dataset(config_for(paths, "char"), {}); },
                           {"data.tokenizer: char", paths[0]});
  expect_error<UsageError>([&] { open_dataset(config_for(paths, "none"), {}); },
                           {"data.tokenizer: none", "model.vocab_size"});
  DataConfig config = config_for(paths, "none");
  config.document_boundaries = true;
  expect_error<UsageError>([&] { open_dataset(config, {.vocab_size = 100}); },
                           {"data.document_token", paths[0]});
  config.document_token = 100;
  expect_error<UsageError>([&] { open_dataset(config, {.vocab_size = 100}); },
                           {"data.document_token: 100", "vocabulary of 100"});
}

TEST(OpenDataset, ASavedTokenizerTakesThePlaceOfTheConfiguredOne) {
  const TempDir dir;
  const std::string path = dir.write("a.txt", letters());
  const std::vector<std::string> wider = {dir.write("wide.txt", letters() + "0123456789")};
  const std::shared_ptr<const Tokenizer> saved = CharTokenizer::from_files(wider);
  const Dataset data = open_dataset(config_for({path}, "char"), {}, saved);
  EXPECT_EQ(data.tokenizer, saved);
  EXPECT_EQ(data.train->vocab_size(), saved->vocab_size());
  // By its file's name, too.
  save_tokenizer(*saved, dir / "tokenizer.json");
  EXPECT_EQ(open_dataset(config_for({path}, dir / "tokenizer.json"), {}).train->vocab_size(),
            saved->vocab_size());
}

TEST(OpenDataset, NamesWhatIsUnsuitable) {
  const TempDir dir;
  const std::string path = dir.write("a.txt", "abc");
  expect_error<DataError>([&] { open_dataset(config_for({path}, "byte"), {}); },
                          {"3 tokens", "a.txt", "seq_len + 1 = 5"});
  expect_error<UsageError>([&] { open_dataset(config_for({path}, "bpe"), {}); },
                           {"data.tokenizer: 'bpe'", ".model"});
  expect_error<DataError>([&] { open_dataset(config_for({path}, dir / "no.model"), {}); },
                          {"no.model"});
  expect_error<DataError>([&] { open_dataset(config_for({}, "byte"), {}); }, {"data.train"});
  DataConfig config = config_for({path}, "byte");
  config.val.fraction = 1.5;
  expect_error<UsageError>([&] { open_dataset(config, {}); }, {"data.val: 1.5"});
  config.val.fraction = 0.999;
  expect_error<DataError>([&] { open_dataset(config, {}); }, {"data.val", "one side empty"});
}

TEST(OpenDataset, MakesTasks) {
  DataConfig config;
  config.task = TaskConfig{.name = "parity"};
  config.batch_size = 3;
  const Dataset data = open_dataset(config, {.seed = 5, .eval_batches = 2});
  EXPECT_EQ(data.train->seq_len(), 40);
  EXPECT_EQ(data.train->num_batches(), BatchSource::kEndless);
  EXPECT_EQ(data.validation->seq_len(), 256);
  EXPECT_EQ(data.validation->num_batches(), 2);
  EXPECT_EQ(data.tokenizer->vocab_size(), 3);
  expect_error<UsageError>([&] { open_dataset(config, {}); }, {"eval.batches", "parity"});
}

}  // namespace
}  // namespace carousel
