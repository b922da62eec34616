// The character tokenizer: one token per Unicode code point that occurs in the training text.
#pragma once

#include "data/tokenizer.h"

namespace carousel {

class CharTokenizer final : public Tokenizer {
 public:
  /// The vocabulary: code points, strictly ascending; token i is code point i of the list. Throws
  /// DataError naming `where` if it is empty, unsorted, or holds no code point.
  CharTokenizer(std::vector<char32_t> vocabulary, const std::string& where);

  /// Collects the vocabulary from text files. Throws DataError if a file is empty, holds a NUL byte
  /// or is not valid UTF-8, with the byte's offset.
  static std::unique_ptr<CharTokenizer> from_files(std::span<const std::string> paths);
  static std::unique_ptr<CharTokenizer> from_json(const nlohmann::json& json,
                                                  const std::string& where);

  std::string_view kind() const override { return "char"; }
  std::int32_t vocab_size() const override { return static_cast<std::int32_t>(vocabulary_.size()); }
  std::vector<std::int32_t> encode(std::string_view text, const TextOrigin& origin) const override;
  bool encodes_in_parts() const override { return true; }
  nlohmann::json to_json() const override;

 protected:
  std::string bytes_of(std::int32_t token, bool& at_start) const override;

 private:
  std::vector<char32_t> vocabulary_;
  std::vector<std::int32_t> token_of_;  // by code point, up to the largest; -1 where there is none
};

}  // namespace carousel
