// A corpus: a read-only sequence of tokens, addressed by 64-bit position.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace carousel {

/// Immutable after construction; all members may be called from several threads.
class Corpus {
 public:
  virtual ~Corpus() = default;

  /// Number of tokens, at least 1.
  std::int64_t size() const { return size_; }
  /// Tokens are [0, vocab_size()).
  std::int32_t vocab_size() const { return vocab_size_; }
  /// Positions at which a document is known to begin from the corpus's structure (a text file's
  /// first token), ascending. Document tokens mark further beginnings by themselves.
  std::span<const std::int64_t> document_starts() const { return document_starts_; }

  /// Overwrites `tokens` with those at [begin, begin + tokens.size()), which must lie within the
  /// corpus. Throws DataError, naming file and offset, at a token that is not in the vocabulary.
  virtual void read(std::int64_t begin, std::span<std::int32_t> tokens) const = 0;

  /// "1115394 tokens of a vocabulary of 65 from input.txt": for the log and for errors.
  virtual std::string describe() const = 0;

 protected:
  /// describe() of a corpus read from these files.
  std::string describe_files(const std::string& first, const std::string& last,
                             std::size_t count) const;

  std::int64_t size_ = 0;
  std::int32_t vocab_size_ = 0;
  std::vector<std::int64_t> document_starts_;
};

/// Tokens [begin, end) of another corpus: the two sides of a held-out share.
class CorpusSlice final : public Corpus {
 public:
  /// 0 <= begin < end <= corpus->size().
  CorpusSlice(std::shared_ptr<const Corpus> corpus, std::int64_t begin, std::int64_t end);

  void read(std::int64_t begin, std::span<std::int32_t> tokens) const override;
  std::string describe() const override;

 private:
  std::shared_ptr<const Corpus> corpus_;
  std::int64_t begin_;
};

}  // namespace carousel
