#include "data/corpus.h"

#include <algorithm>

#include "core/base/error.h"

namespace carousel {

std::string Corpus::describe_files(const std::string& first, const std::string& last,
                                   std::size_t count) const {
  const std::string files =
      count == 1 ? first : fmt::format("{} files, {} to {}", count, first, last);
  return fmt::format("{} tokens of a vocabulary of {} from {}", size_, vocab_size_, files);
}

CorpusSlice::CorpusSlice(std::shared_ptr<const Corpus> corpus, std::int64_t begin, std::int64_t end)
    : corpus_(std::move(corpus)), begin_(begin) {
  CAROUSEL_CHECK(0 <= begin && begin < end && end <= corpus_->size(),
                 "tokens [{}, {}) of a corpus of {}", begin, end, corpus_->size());
  size_ = end - begin;
  vocab_size_ = corpus_->vocab_size();
  const auto starts = corpus_->document_starts();
  for (auto it = std::ranges::lower_bound(starts, begin); it != starts.end() && *it < end; ++it) {
    document_starts_.push_back(*it - begin);
  }
}

void CorpusSlice::read(std::int64_t begin, std::span<std::int32_t> tokens) const {
  CAROUSEL_CHECK(begin >= 0 && begin + static_cast<std::int64_t>(tokens.size()) <= size_,
                 "tokens {}+{} of a corpus of {}", begin, tokens.size(), size_);
  corpus_->read(begin_ + begin, tokens);
}

std::string CorpusSlice::describe() const {
  return fmt::format("{} tokens, [{}, {}) of {}", size_, begin_, begin_ + size_,
                     corpus_->describe());
}

}  // namespace carousel
