#include "data/loader.h"

#include <algorithm>
#include <vector>

#include "core/base/error.h"
#include "core/kernels/cross_entropy.h"

namespace carousel {
namespace {

const Corpus& checked_corpus(const std::shared_ptr<const Corpus>& corpus,
                             const LoaderOptions& options) {
  CAROUSEL_CHECK(corpus != nullptr, "a loader without a corpus");
  CAROUSEL_CHECK(options.seq_len >= 1 && options.batch_size >= 1, "batches of {} sequences of {}",
                 options.batch_size, options.seq_len);
  if (corpus->size() <= options.seq_len) {
    throw DataError(
        "{}: one sequence needs seq_len + 1 = {} tokens; use more text or a smaller "
        "data.seq_len",
        corpus->describe(), options.seq_len + 1);
  }
  return *corpus;
}

std::int64_t whole_windows(std::int64_t tokens, std::int64_t seq_len) {
  return (tokens - 1) / seq_len;
}

std::int64_t batches_for(std::int64_t windows, std::int64_t batch_size) {
  return (windows + batch_size - 1) / batch_size;
}

std::int64_t eval_batches(const Corpus& corpus, const LoaderOptions& options, std::int64_t count) {
  const std::int64_t all =
      batches_for(whole_windows(corpus.size(), options.seq_len), options.batch_size);
  return count > 0 ? std::min(count, all) : all;
}

}  // namespace

WindowSource::WindowSource(std::shared_ptr<const Corpus> corpus, const LoaderOptions& options,
                           std::int64_t num_batches)
    : BatchSource(options.batch_size, options.seq_len, checked_corpus(corpus, options).vocab_size(),
                  num_batches),
      corpus_(std::move(corpus)),
      options_(options) {}

void WindowSource::fill_row(Batch& batch, std::int64_t row, std::int64_t start) const {
  const std::int64_t n = seq_len();
  std::vector<std::int32_t> window(static_cast<std::size_t>(n) + 1);
  corpus_->read(start, window);
  std::int32_t* targets = batch.targets.data<std::int32_t>() + row * n;
  std::copy_n(window.begin(), n, batch.tokens.data<std::int32_t>() + row * n);
  std::copy_n(window.begin() + 1, n, targets);
  batch.target_count += n;
  if (!options_.document_boundaries) return;

  std::uint8_t* reset = batch.reset.data<std::uint8_t>() + row * n;
  std::fill_n(reset, n, std::uint8_t{0});
  if (options_.document_token) {
    for (std::int64_t i = 0; i < n; ++i) {
      reset[i] = window[static_cast<std::size_t>(i)] == *options_.document_token;
    }
  }
  const auto starts = corpus_->document_starts();
  for (auto it = std::ranges::lower_bound(starts, start); it != starts.end() && *it <= start + n;
       ++it) {
    const std::int64_t i = *it - start;
    if (i < n) reset[i] = 1;
    if (i > 0 && window[static_cast<std::size_t>(i)] != options_.document_token) {
      targets[i - 1] = kIgnoreTarget;
      --batch.target_count;
    }
  }
}

void WindowSource::fill_empty_row(Batch& batch, std::int64_t row) const {
  const std::int64_t n = seq_len();
  std::fill_n(batch.tokens.data<std::int32_t>() + row * n, n, 0);
  std::fill_n(batch.targets.data<std::int32_t>() + row * n, n, kIgnoreTarget);
  if (batch.reset) std::fill_n(batch.reset.data<std::uint8_t>() + row * n, n, std::uint8_t{0});
}

std::string WindowSource::describe_corpus() const {
  std::string text = corpus_->describe();
  if (!options_.document_boundaries) return text;
  if (options_.document_token)
    text += fmt::format(", documents begin at token {}", *options_.document_token);
  const std::size_t starts = corpus_->document_starts().size();
  if (starts > 0) text += fmt::format(", {} documents are files", starts);
  return text;
}

BatchLoader::BatchLoader(std::shared_ptr<const Corpus> corpus, const LoaderOptions& options,
                         std::uint64_t seed)
    : WindowSource(std::move(corpus), options, kEndless),
      order_(this->corpus().size(), options.seq_len, seed) {}

Batch BatchLoader::batch(std::int64_t step, std::int64_t begin, std::int64_t end) const {
  Batch batch = new_batch(step, begin, end, document_boundaries());
  for (std::int64_t b = begin; b < end; ++b) {
    fill_row(batch, b - begin, order_.start(step * batch_size() + b));
  }
  return batch;
}

std::string BatchLoader::describe(std::int64_t steps) const {
  std::string text = fmt::format("{}; {} windows of {} tokens an epoch", describe_corpus(),
                                 order_.windows_per_epoch(), seq_len());
  if (steps > 0) {
    const double samples = static_cast<double>(steps) * static_cast<double>(batch_size());
    text +=
        fmt::format(", {:.2f} epochs in {} steps of {}",
                    samples / static_cast<double>(order_.windows_per_epoch()), steps, batch_size());
  }
  return text;
}

EvalLoader::EvalLoader(const std::shared_ptr<const Corpus>& corpus, const LoaderOptions& options,
                       std::int64_t count)
    : WindowSource(corpus, options, eval_batches(checked_corpus(corpus, options), options, count)),
      windows_(whole_windows(this->corpus().size(), options.seq_len)) {}

Batch EvalLoader::batch(std::int64_t index, std::int64_t begin, std::int64_t end) const {
  Batch batch = new_batch(index, begin, end, document_boundaries());
  const std::int64_t all = batches_for(windows_, batch_size());
  const std::int64_t chosen = index * all / num_batches();
  for (std::int64_t b = begin; b < end; ++b) {
    const std::int64_t window = chosen * batch_size() + b;
    if (window < windows_) {
      fill_row(batch, b - begin, window * seq_len());
    } else {
      fill_empty_row(batch, b - begin);
    }
  }
  return batch;
}

std::string EvalLoader::describe(std::int64_t) const {
  return fmt::format("{}; {} of {} batches of {} windows of {} tokens", describe_corpus(),
                     num_batches(), batches_for(windows_, batch_size()), batch_size(), seq_len());
}

}  // namespace carousel
