#include "data/id_tokenizer.h"

#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/error.h"
#include "data/json_fields.h"

namespace carousel {

IdTokenizer::IdTokenizer(std::int32_t vocab_size, std::optional<std::int32_t> document_token,
                         const std::string& where)
    : vocab_size_(vocab_size), document_token_(document_token) {
  if (vocab_size <= 0) {
    throw DataError("{}: vocab_size is {}; tokenizer: none needs the number of token ids", where,
                    vocab_size);
  }
  if (document_token && (*document_token < 0 || *document_token >= vocab_size)) {
    throw DataError("{}: document_token {} is not in the vocabulary of {}", where, *document_token,
                    vocab_size);
  }
}

std::unique_ptr<IdTokenizer> IdTokenizer::from_json(const nlohmann::json& json,
                                                    const std::string& where) {
  constexpr std::int64_t kMax = std::numeric_limits<std::int32_t>::max();
  const auto size = static_cast<std::int32_t>(json_integer(json, "vocab_size", 1, kMax, where));
  std::optional<std::int32_t> document_token;
  if (json.contains("document_token")) {
    document_token =
        static_cast<std::int32_t>(json_integer(json, "document_token", 0, size - 1, where));
  }
  return std::make_unique<IdTokenizer>(size, document_token, where);
}

std::vector<std::int32_t> IdTokenizer::encode(std::string_view text,
                                              const TextOrigin& origin) const {
  constexpr std::string_view kSpace = " \t\r\n";
  std::vector<std::int32_t> tokens;
  for (std::size_t i = text.find_first_not_of(kSpace); i < text.size();
       i = text.find_first_not_of(kSpace, i)) {
    const std::size_t end = std::min(text.find_first_of(kSpace, i), text.size());
    const std::string_view word = text.substr(i, end - i);
    std::int32_t token = -1;
    const auto [rest, error] = std::from_chars(word.data(), word.data() + word.size(), token);
    if (error != std::errc{} || rest != word.data() + word.size() || token < 0 ||
        token >= vocab_size_) {
      throw DataError(
          "{}: '{}' at byte {} is not a token id in [0, {}); tokenizer: none reads ids separated "
          "by spaces",
          origin.name, word.substr(0, 20), origin.offset + i, vocab_size_);
    }
    tokens.push_back(token);
    i = end;
  }
  return tokens;
}

std::string IdTokenizer::bytes_of(std::int32_t token, bool& at_start) const {
  return fmt::format("{}{}", std::exchange(at_start, false) ? "" : " ", token);
}

nlohmann::json IdTokenizer::to_json() const {
  nlohmann::json json = {{"kind", kind()}, {"vocab_size", vocab_size_}};
  if (document_token_) json["document_token"] = *document_token_;
  return json;
}

}  // namespace carousel
