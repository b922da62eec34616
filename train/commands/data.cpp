#include <filesystem>

#include "core/base/log.h"
#include "data/dataset.h"
#include "data/shard_writer.h"
#include "data/text_corpus.h"
#include "train/commands/commands.h"

namespace carousel {
namespace {

struct Options {
  std::vector<std::string> texts;
  std::string tokenizer = "byte";
  std::string output;
  std::int64_t shard_tokens = 100'000'000;
  bool documents = false;
};

void run_data(const Options& options) {
  const CorpusFiles files = find_corpus_files(options.texts);
  if (files.kind != CorpusKind::kText) {
    throw UsageError("{} is a token shard already; name text files", files.paths.front());
  }
  if (options.tokenizer == "none") {
    throw UsageError("tokenizer none cannot encode text; choose byte, char or a file");
  }
  DataConfig config;
  config.tokenizer = options.tokenizer;
  const auto tokenizer = make_tokenizer(config, files, 0);
  constexpr std::int32_t kMostTokens = 65536;
  if (tokenizer->vocab_size() > kMostTokens) {
    throw UsageError(
        "tokenizer '{}' has {} tokens, but shards hold 16 bits a token, {} at most; train on the "
        "text files themselves",
        options.tokenizer, tokenizer->vocab_size(), kMostTokens);
  }
  const auto document = tokenizer->document_token();
  if (options.documents && !document) {
    throw UsageError("--documents: tokenizer '{}' has no token that starts a document",
                     options.tokenizer);
  }
  if (const auto folder = std::filesystem::path(options.output).parent_path(); !folder.empty()) {
    std::filesystem::create_directories(folder);
  }
  ShardWriter writer(options.output, tokenizer->vocab_size(), options.shard_tokens);
  std::size_t tokens = 0;
  const auto append = [&](std::span<const std::int32_t> part) {
    writer.append(part);
    tokens += part.size();
  };
  for (const std::string& path : files.paths) {
    if (options.documents) append(std::span(&*document, 1));
    encode_file(path, *tokenizer, append);
  }
  const auto shards = writer.finish();
  const std::string saved = options.output + "_tokenizer.json";
  save_tokenizer(*tokenizer, saved);
  log::info("{} tokens of {} files in {} shards", tokens, files.paths.size(), shards.size());
  fmt::print("data.train='{}_*.bin' data.tokenizer='{}'\n", options.output, saved);
}

}  // namespace

void add_data(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "data", "Encode text once, into token shards that runs read without delay (llm.c's format)");
  command->add_option("texts", options->texts, "text files, directories or glob patterns")
      ->required();
  command->add_option("--output", options->output, "shards are named OUTPUT_000000.bin, …")
      ->required();
  command
      ->add_option("--tokenizer", options->tokenizer,
                   "byte, char, or the path of a SentencePiece .model or Carousel's tokenizer.json")
      ->capture_default_str();
  command->add_option("--shard-tokens", options->shard_tokens, "tokens a shard")
      ->capture_default_str()
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{INT32_MAX}));
  command->add_flag("--documents", options->documents,
                    "put the tokenizer's document token before each file");
  command->footer(
      "Prints the keys with which a run trains on the shards; the tokenizer is kept beside them "
      "as\n"
      "OUTPUT_tokenizer.json.\n"
      "Example: carousel data corpus/ --tokenizer spm.model --output shards/corpus");
  command->callback([options] { run_data(*options); });
}

}  // namespace carousel
