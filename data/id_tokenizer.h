// The tokenizer `none`: text is a list of token ids. For token shards whose own tokenizer is not
// at hand.
#pragma once

#include "data/tokenizer.h"

namespace carousel {

/// Encodes decimal ids separated by white space, decodes to ids separated by single spaces.
class IdTokenizer final : public Tokenizer {
 public:
  /// Throws DataError naming `where` unless vocab_size > 0 and document_token, if any, is an id.
  IdTokenizer(std::int32_t vocab_size, std::optional<std::int32_t> document_token,
              const std::string& where);
  static std::unique_ptr<IdTokenizer> from_json(const nlohmann::json& json,
                                                const std::string& where);

  std::string_view kind() const override { return "none"; }
  std::int32_t vocab_size() const override { return vocab_size_; }
  std::optional<std::int32_t> document_token() const override { return document_token_; }
  std::vector<std::int32_t> encode(std::string_view text, const TextOrigin& origin) const override;
  bool encodes_in_parts() const override { return false; }
  nlohmann::json to_json() const override;

 protected:
  std::string bytes_of(std::int32_t token, bool& at_start) const override;

 private:
  std::int32_t vocab_size_;
  std::optional<std::int32_t> document_token_;
};

}  // namespace carousel
