#include <gtest/gtest.h>

#include <filesystem>

#include "data/dataset.h"
#include "data/shard_corpus.h"
#include "tests/support/program.h"

namespace carousel {
namespace {

using testing::Outcome;
using testing::run_program;
using testing::TempDir;

Outcome data(const std::string& arguments) { return run_program("data " + arguments); }

std::vector<std::int32_t> tokens_of(const std::vector<std::string>& shards,
                                    const Tokenizer& tokenizer) {
  const ShardCorpus corpus(shards, tokenizer.vocab_size());
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(corpus.size()));
  corpus.read(0, tokens);
  return tokens;
}

TEST(DataCommand, EncodesFilesIntoShardsFromWhichARunTrainsAndWritesText) {
  const TempDir dir;
  std::string first;
  for (int i = 0; i < 300; ++i) first += fmt::format("größer {} than ∞.\n", i);
  const std::string second = "another file\n";
  dir.write("text/a.txt", first);
  dir.write("text/b.txt", second);
  const Outcome made = data(fmt::format("'{}' --tokenizer char --shard-tokens 2000 --output '{}'",
                                        dir / "text", dir / "shards/c"));
  ASSERT_EQ(made.code, 0) << made.err;
  const auto tokenizer = load_tokenizer(dir / "shards/c_tokenizer.json");
  const auto shards = find_corpus_files(std::vector{dir / "shards/c_*.bin"}).paths;
  EXPECT_GT(shards.size(), 2u);
  EXPECT_EQ(tokenizer->decode(tokens_of(shards, *tokenizer)), first + second);

  // The keys that it printed.
  const std::string keys = made.out.substr(0, made.out.find('\n'));
  const std::string config =
      dir.write("run.yaml",
                "name: tiny\nsteps: 2\ndevice: cpu\ndata: {seq_len: 16, batch_size: 2}\n"
                "model: {family: xlstm_large, embedding_dim: 32, num_heads: 2, num_blocks: 1}\n");
  const Outcome trained =
      run_program(fmt::format("train '{}' output_dir='{}' {}", config, dir / "run", keys));
  EXPECT_EQ(trained.code, 0) << trained.err;
  const Outcome text =
      run_program(fmt::format("generate '{}' --prompt grö --tokens 5", dir / "run"));
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_TRUE(text.out.starts_with("grö")) << text.out;
}

TEST(DataCommand, MarksDocumentsOnRequest) {
  const TempDir dir;
  dir.write("text/a.txt", "ab");
  dir.write("text/b.txt", "c");
  ASSERT_EQ(data(fmt::format("'{}' --documents --output '{}'", dir / "text", dir / "d")).code, 0);
  const auto tokenizer = load_tokenizer(dir / "d_tokenizer.json");
  const auto document = tokenizer->document_token();
  ASSERT_TRUE(document);
  EXPECT_EQ(tokens_of({dir / "d_000000.bin"}, *tokenizer),
            (std::vector<std::int32_t>{*document, 'a', 'b', *document, 'c'}));
}

TEST(DataCommand, RefusesWhatItCannotEncode) {
  const TempDir dir;
  const std::string text = dir.write("a.txt", "text");
  const auto refused = [&](const std::string& input, const std::string& options, int code,
                           const std::string& why) {
    const Outcome outcome = data(fmt::format("'{}' {} --output '{}'", input, options, dir / "s"));
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_NE(outcome.err.find(why), std::string::npos) << outcome.err;
    EXPECT_FALSE(std::filesystem::exists(dir / "s_000000.bin"));
  };
  refused(text, "--tokenizer none", 2, "tokenizer none cannot encode text");
  refused(text, "--tokenizer words", 2, "'words' is none of byte, char");
  refused(text, "--tokenizer char --documents", 2, "has no token that starts a document");
  refused(dir / "none.txt", "", 3, "none.txt");
  refused(dir.write("b.txt", "ab\xff"), "--tokenizer char", 3, "b.txt");
  refused(dir.write("x.bin", ""), "", 2, "is a token shard already");
  EXPECT_EQ(data(text).code, 2);
  const std::string again = fmt::format("'{}' --output '{}'", text, dir / "t");
  ASSERT_EQ(data(again).code, 0);
  const Outcome outcome = data(again);
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.err.find("t_000000.bin exists"), std::string::npos) << outcome.err;
}

}  // namespace
}  // namespace carousel
