// Text files, tokenised into memory.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <variant>

#include "data/corpus.h"
#include "data/tokenizer.h"

namespace carousel {

/// Encodes a text file and hands its tokens to `take`, in order and in parts where the tokenizer
/// allows them: beside the mapped file, no more than a part is in memory. Throws DataError if the
/// file is missing, empty or cannot be encoded.
void encode_file(const std::string& path, const Tokenizer& tokenizer,
                 const std::function<void(std::span<const std::int32_t>)>& take);

/// Every file is one document. Tokens are kept as uint16 where the vocabulary allows, else int32.
class TextCorpus final : public Corpus {
 public:
  /// Reads and encodes all files. With `mark_documents`, the tokenizer's document token (if it has
  /// one) is put in front of each file's tokens. Throws DataError if a file is missing, empty or
  /// cannot be encoded.
  TextCorpus(std::span<const std::string> paths, const Tokenizer& tokenizer, bool mark_documents);

  void read(std::int64_t begin, std::span<std::int32_t> tokens) const override;
  std::string describe() const override;

 private:
  std::vector<std::string> paths_;
  std::variant<std::vector<std::uint16_t>, std::vector<std::int32_t>> tokens_;
};

}  // namespace carousel
