// The data of a run, from its configuration.
#pragma once

#include <memory>

#include "data/batch.h"
#include "data/config.h"
#include "data/files.h"
#include "data/tokenizer.h"

namespace carousel {

/// What decides about batches besides the `data` section.
struct DatasetOptions {
  std::uint64_t seed = 0;
  std::int64_t eval_batches = 0;  ///< 0: the whole validation corpus; a task needs a number
  std::int64_t vocab_size = 0;    ///< of tokenizer `none`, and of no other
};

/// The configured tokenizer, for `train`; a char tokenizer's vocabulary is that of the files.
/// `vocab_size` as in DatasetOptions. Throws DataError or UsageError as open_dataset() does.
std::shared_ptr<const Tokenizer> make_tokenizer(const DataConfig& config, const CorpusFiles& train,
                                                std::int64_t vocab_size);

/// Throws UsageError if a validation file is one of the training files too. What else is wrong with
/// the files, open_dataset() finds.
void check_held_out(const DataConfig& config);

/// Everything is shared read-only.
struct Dataset {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const BatchSource> train;
  std::shared_ptr<const BatchSource> validation;  ///< null if none is configured
};

/// Opens corpora and tokenizer. `saved`, the tokenizer of a run that continues, takes the place of
/// the configured one. The char tokenizer's vocabulary is built from the whole training text,
/// before a part is held out. Shards under `none` take GPT-2's document token, 50256, if that is an
/// id and nothing else is configured. Throws DataError for unsuitable files, UsageError for a
/// contradictory configuration.
Dataset open_dataset(const DataConfig& config, const DatasetOptions& options,
                     std::shared_ptr<const Tokenizer> saved = nullptr);

}  // namespace carousel
