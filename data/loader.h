// Batches of windows of a corpus: shuffled for training, in order for evaluation.
#pragma once

#include <memory>
#include <optional>

#include "data/batch.h"
#include "data/corpus.h"
#include "data/windows.h"

namespace carousel {

struct LoaderOptions {
  std::int64_t seq_len = 0;
  std::int64_t batch_size = 0;  ///< sequences, over all ranks
  /// Fills Batch::reset, and ignores targets that are another document's first token, unless that
  /// is the document token itself: predicting it means to predict the document's end.
  bool document_boundaries = false;
  std::optional<std::int32_t> document_token;  ///< every occurrence begins a document
};

/// What training and evaluation share: filling one row of a batch from a window.
class WindowSource : public BatchSource {
 public:
  std::int64_t corpus_size() const final { return corpus_->size(); }

 protected:
  /// Throws DataError if the corpus is shorter than one window.
  WindowSource(std::shared_ptr<const Corpus> corpus, const LoaderOptions& options,
               std::int64_t num_batches);

  /// Fills row `row` with the window that begins at token `start` and adds to target_count.
  void fill_row(Batch& batch, std::int64_t row, std::int64_t start) const;
  /// Fills row `row` with token 0 and ignored targets.
  void fill_empty_row(Batch& batch, std::int64_t row) const;

  const Corpus& corpus() const { return *corpus_; }
  bool document_boundaries() const { return options_.document_boundaries; }
  /// The corpus and how documents are told apart.
  std::string describe_corpus() const;

 private:
  std::shared_ptr<const Corpus> corpus_;
  LoaderOptions options_;
};

/// Training batches: sequence b of step t is sample t·batch_size + b of WindowOrder(seed).
class BatchLoader final : public WindowSource {
 public:
  /// Throws DataError if the corpus has fewer than seq_len + 1 tokens.
  BatchLoader(std::shared_ptr<const Corpus> corpus, const LoaderOptions& options,
              std::uint64_t seed);

  Batch batch(std::int64_t step, std::int64_t begin, std::int64_t end) const override;
  std::string describe(std::int64_t steps) const override;

 private:
  WindowOrder order_;
};

/// Evaluation batches: the corpus's windows in order, each in one batch at most. All batches have
/// batch_size rows; those beyond the last window have no targets. Tokens after the last whole
/// window are not used.
class EvalLoader final : public WindowSource {
 public:
  /// `count` batches evenly spread over the corpus, or all of them if count is 0 or more than there
  /// are. Throws DataError if the corpus has fewer than seq_len + 1 tokens.
  EvalLoader(const std::shared_ptr<const Corpus>& corpus, const LoaderOptions& options,
             std::int64_t count);

  Batch batch(std::int64_t index, std::int64_t begin, std::int64_t end) const override;
  std::string describe(std::int64_t steps) const override;

 private:
  std::int64_t windows_;
};

}  // namespace carousel
