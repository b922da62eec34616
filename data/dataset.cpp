#include "data/dataset.h"

#include <limits>

#include "core/base/error.h"
#include "data/byte_tokenizer.h"
#include "data/char_tokenizer.h"
#include "data/files.h"
#include "data/id_tokenizer.h"
#include "data/loader.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/shard_corpus.h"
#include "data/tasks/task_source.h"
#include "data/text_corpus.h"

namespace carousel {
namespace {

constexpr std::int32_t kGpt2DocumentToken = 50256;

std::optional<std::int32_t> configured_document_token(const DataConfig& config,
                                                      std::int64_t vocab_size) {
  if (!config.document_token) return std::nullopt;
  if (*config.document_token < 0 || *config.document_token >= vocab_size) {
    throw UsageError("data.document_token: {} is not in the vocabulary of {}",
                     *config.document_token, vocab_size);
  }
  return static_cast<std::int32_t>(*config.document_token);
}

std::shared_ptr<const Tokenizer> make_id_tokenizer(const DataConfig& config,
                                                   const CorpusFiles& train,
                                                   std::int64_t vocab_size) {
  if (vocab_size < 1 || vocab_size > std::numeric_limits<std::int32_t>::max()) {
    throw UsageError(
        "data.tokenizer: none needs the number of token ids, not {}; set "
        "model.vocab_size",
        vocab_size);
  }
  auto token = configured_document_token(config, vocab_size);
  if (!token && train.kind == CorpusKind::kShards && vocab_size > kGpt2DocumentToken) {
    token = kGpt2DocumentToken;
  }
  return std::make_shared<IdTokenizer>(static_cast<std::int32_t>(vocab_size), token, "data");
}

std::shared_ptr<const Corpus> open_corpus(const CorpusFiles& files, const Tokenizer& tokenizer,
                                          bool mark_documents) {
  if (files.kind == CorpusKind::kShards) {
    return std::make_shared<ShardCorpus>(files.paths, tokenizer.vocab_size());
  }
  return std::make_shared<TextCorpus>(files.paths, tokenizer, mark_documents);
}

LoaderOptions loader_options(const DataConfig& config, const CorpusFiles& train,
                             const Tokenizer& tokenizer) {
  auto token = configured_document_token(config, tokenizer.vocab_size());
  if (!token) token = tokenizer.document_token();
  if (config.document_boundaries && !token && train.kind == CorpusKind::kShards) {
    throw UsageError(
        "data.document_boundaries: the tokenizer has no document token to find the "
        "documents of {} by; set data.document_token",
        train.paths.front());
  }
  return {config.seq_len, config.batch_size, config.document_boundaries, token};
}

Dataset open_task(const DataConfig& config, const DatasetOptions& options) {
  if (options.eval_batches <= 0) {
    throw UsageError("eval.batches: {}; task {} has no end, so name a number of batches",
                     options.eval_batches, config.task->name);
  }
  const auto source = [&](TaskSplit split, std::int64_t count) {
    return std::make_shared<TaskSource>(*config.task, split, config.batch_size, count,
                                        options.seed);
  };
  Dataset data;
  data.train = source(TaskSplit::kTrain, BatchSource::kEndless);
  data.validation = source(TaskSplit::kValidation, options.eval_batches);
  data.tokenizer =
      std::make_shared<IdTokenizer>(data.train->vocab_size(), std::nullopt, config.task->name);
  return data;
}

struct Split {
  std::shared_ptr<const Corpus> train;
  std::shared_ptr<const Corpus> validation;
};

/// Holds out the last `fraction` of the tokens.
Split split_corpus(const std::shared_ptr<const Corpus>& corpus, double fraction) {
  if (!(fraction > 0.0 && fraction < 1.0)) {
    throw UsageError("data.val: {} is not a number in (0, 1); for files, name their paths",
                     fraction);
  }
  const std::int64_t size = corpus->size();
  const auto train = static_cast<std::int64_t>(static_cast<double>(size) * (1.0 - fraction));
  if (train < 1 || train >= size) {
    throw DataError("data.val: holding out {} of {} leaves one side empty; use more text", fraction,
                    corpus->describe());
  }
  return {std::make_shared<CorpusSlice>(corpus, 0, train),
          std::make_shared<CorpusSlice>(corpus, train, size)};
}

}  // namespace

std::shared_ptr<const Tokenizer> make_tokenizer(const DataConfig& config, const CorpusFiles& train,
                                                std::int64_t vocab_size) {
  const std::string& name = config.tokenizer;
  if (name == "byte") return std::make_shared<ByteTokenizer>();
  if (name == "none") return make_id_tokenizer(config, train, vocab_size);
  if (name == "char") {
    if (train.kind == CorpusKind::kText) return CharTokenizer::from_files(train.paths);
    throw UsageError(
        "data.tokenizer: char is built from text, but {} is a token shard; use none or "
        "the tokenizer that made the shards",
        train.paths.front());
  }
  if (name.ends_with(".model")) return SentencePieceTokenizer::from_file(name);
  if (name.ends_with(".json")) return load_tokenizer(name);
  throw UsageError(
      "data.tokenizer: '{}' is none of byte, char, none, a SentencePiece .model file, "
      "a tokenizer.json that Carousel wrote",
      name);
}

void check_held_out(const DataConfig& config) {
  if (config.task || config.val.files.empty()) return;
  std::optional<std::string> shared;
  try {
    shared = shared_file(find_corpus_files(config.val.files), find_corpus_files(config.train));
  } catch (const DataError&) {
    return;  // open_dataset() tells it, once all processes have joined
  }
  if (!shared) return;
  throw UsageError(
      "data.val: {} is a file of data.train too, so the model would be validated on what it "
      "learns; name another file, or the fraction to hold out, such as 0.1",
      *shared);
}

Dataset open_dataset(const DataConfig& config, const DatasetOptions& options,
                     std::shared_ptr<const Tokenizer> saved) {
  if (config.task) return open_task(config, options);
  const CorpusFiles files = find_corpus_files(config.train);
  Dataset data;
  data.tokenizer = saved ? std::move(saved) : make_tokenizer(config, files, options.vocab_size);
  const LoaderOptions loader = loader_options(config, files, *data.tokenizer);
  const auto open = [&](const CorpusFiles& these) {
    return open_corpus(these, *data.tokenizer, config.document_boundaries);
  };
  Split split;
  if (!config.val.files.empty()) {
    split = {open(files), open(find_corpus_files(config.val.files))};
  } else if (config.val.given()) {
    split = split_corpus(open(files), config.val.fraction);
  } else {
    split = {open(files), nullptr};
  }
  data.train = std::make_shared<BatchLoader>(split.train, loader, options.seed);
  if (split.validation) {
    data.validation = std::make_shared<EvalLoader>(split.validation, loader, options.eval_batches);
  }
  return data;
}

}  // namespace carousel
