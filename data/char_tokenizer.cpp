#include "data/char_tokenizer.h"

#include <nlohmann/json.hpp>

#include "core/base/file.h"
#include "data/files.h"
#include "data/json_fields.h"
#include "data/text.h"

namespace carousel {

CharTokenizer::CharTokenizer(std::vector<char32_t> vocabulary, const std::string& where)
    : vocabulary_(std::move(vocabulary)) {
  if (vocabulary_.empty()) throw DataError("{}: the vocabulary has no characters", where);
  for (std::size_t i = 0; i < vocabulary_.size(); ++i) {
    const char32_t c = vocabulary_[i];
    if (c == 0 || c > kMaxCodePoint || (c >= 0xD800 && c < 0xE000)) {
      throw DataError("{}: entry {} of the vocabulary, 0x{:X}, is not a character", where, i,
                      static_cast<std::uint32_t>(c));
    }
    if (i > 0 && c <= vocabulary_[i - 1]) {
      throw DataError("{}: the vocabulary is not in ascending order at entry {}, {}", where, i,
                      name_of_character(c));
    }
  }
  token_of_.assign(vocabulary_.back() + std::size_t{1}, -1);
  for (std::size_t i = 0; i < vocabulary_.size(); ++i) {
    token_of_[vocabulary_[i]] = static_cast<std::int32_t>(i);
  }
}

std::unique_ptr<CharTokenizer> CharTokenizer::from_files(std::span<const std::string> paths) {
  std::vector<bool> seen(kMaxCodePoint + std::size_t{1});
  for (const std::string& path : paths) {
    const MappedFile file(path, ExitCode::kData);
    if (file.text().empty()) throw DataError("{} is empty; remove it from the corpus", path);
    for_each_character(file.text(), {path}, [&](char32_t c, std::size_t) { seen[c] = true; });
  }
  std::vector<char32_t> vocabulary;
  for (char32_t c = 0; c <= kMaxCodePoint; ++c) {
    if (seen[c]) vocabulary.push_back(c);
  }
  return std::make_unique<CharTokenizer>(std::move(vocabulary), "the training text");
}

std::unique_ptr<CharTokenizer> CharTokenizer::from_json(const nlohmann::json& json,
                                                        const std::string& where) {
  std::vector<char32_t> vocabulary;
  for_each_character(json_string(json, "characters", where), {where + ", key 'characters'"},
                     [&](char32_t c, std::size_t) { vocabulary.push_back(c); });
  return std::make_unique<CharTokenizer>(std::move(vocabulary), where);
}

std::vector<std::int32_t> CharTokenizer::encode(std::string_view text,
                                                const TextOrigin& origin) const {
  std::vector<std::int32_t> tokens;
  tokens.reserve(text.size());
  for_each_character(text, origin, [&](char32_t c, std::size_t offset) {
    const std::int32_t token = c < token_of_.size() ? token_of_[c] : -1;
    if (token < 0) [[unlikely]] {
      throw DataError(
          "{}: character {} at byte {} is not in the vocabulary of {} characters; remove it, build "
          "the vocabulary from a text that has it, or use tokenizer: byte",
          origin.name, name_of_character(c), origin.offset + offset, vocab_size());
    }
    tokens.push_back(token);
  });
  return tokens;
}

std::string CharTokenizer::bytes_of(std::int32_t token, bool& at_start) const {
  at_start = false;
  std::string text;
  append_utf8(text, vocabulary_[static_cast<std::size_t>(token)]);
  return text;
}

nlohmann::json CharTokenizer::to_json() const {
  std::string characters;
  for (const char32_t c : vocabulary_) append_utf8(characters, c);
  return {{"kind", kind()}, {"characters", characters}};
}

}  // namespace carousel
