#include "data/byte_tokenizer.h"

#include <nlohmann/json.hpp>

namespace carousel {

std::vector<std::int32_t> ByteTokenizer::encode(std::string_view text, const TextOrigin&) const {
  std::vector<std::int32_t> tokens(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) tokens[i] = static_cast<unsigned char>(text[i]);
  return tokens;
}

std::string ByteTokenizer::bytes_of(std::int32_t token, bool& at_start) const {
  if (token == kDocumentToken) return {};
  at_start = false;
  return std::string(1, static_cast<char>(token));
}

nlohmann::json ByteTokenizer::to_json() const { return {{"kind", kind()}}; }

}  // namespace carousel
