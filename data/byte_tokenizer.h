// The byte tokenizer: token = byte, and token 256 in front of every document.
#pragma once

#include "data/tokenizer.h"

namespace carousel {

/// Needs no training text and encodes every file.
class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr std::int32_t kDocumentToken = 256;

  std::string_view kind() const override { return "byte"; }
  std::int32_t vocab_size() const override { return kDocumentToken + 1; }
  std::optional<std::int32_t> document_token() const override { return kDocumentToken; }
  std::vector<std::int32_t> encode(std::string_view text, const TextOrigin& origin) const override;
  bool encodes_in_parts() const override { return true; }
  nlohmann::json to_json() const override;

 protected:
  std::string bytes_of(std::int32_t token, bool& at_start) const override;
};

}  // namespace carousel
