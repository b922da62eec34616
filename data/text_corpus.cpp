#include "data/text_corpus.h"

#include <algorithm>
#include <limits>

#include "core/base/error.h"
#include "core/base/file.h"
#include "data/files.h"

namespace carousel {
namespace {

/// Bounds the int32 tokens that encode() holds beside the text and the corpus.
constexpr std::size_t kPartBytes = std::size_t{1} << 20;

/// The end of a part of at most kPartBytes that begins at `begin`, not within a character.
std::size_t end_of_part(std::string_view text, std::size_t begin) {
  if (text.size() - begin <= kPartBytes) return text.size();
  std::size_t end = begin + kPartBytes;
  // A character has at most three continuation bytes; more of them is for the tokenizer to judge.
  for (int i = 0; i < 3 && (static_cast<unsigned char>(text[end]) & 0xC0u) == 0x80u; ++i) --end;
  return end;
}

}  // namespace

void encode_file(const std::string& path, const Tokenizer& tokenizer,
                 const std::function<void(std::span<const std::int32_t>)>& take) {
  const MappedFile file(path, ExitCode::kData);
  const std::string_view text = file.text();
  if (text.empty()) throw DataError("{} is empty; remove it from the corpus", path);
  if (!tokenizer.encodes_in_parts()) return take(tokenizer.encode(text, {path}));
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = end_of_part(text, begin);
    take(tokenizer.encode(text.substr(begin, end - begin), {path, begin}));
    begin = end;
  }
}

TextCorpus::TextCorpus(std::span<const std::string> paths, const Tokenizer& tokenizer,
                       bool mark_documents)
    : paths_(paths.begin(), paths.end()) {
  vocab_size_ = tokenizer.vocab_size();
  if (vocab_size_ > std::numeric_limits<std::uint16_t>::max() + 1) {
    tokens_.emplace<std::vector<std::int32_t>>();
  }
  std::visit(
      [&](auto& tokens) {
        using Token = typename std::decay_t<decltype(tokens)>::value_type;
        for (const std::string& path : paths) {
          const std::size_t start = tokens.size();
          if (mark_documents && tokenizer.document_token()) {
            tokens.push_back(static_cast<Token>(*tokenizer.document_token()));
          }
          encode_file(path, tokenizer, [&](std::span<const std::int32_t> part) {
            std::ranges::transform(part, std::back_inserter(tokens),
                                   [](std::int32_t token) { return static_cast<Token>(token); });
          });
          if (tokens.size() == start) throw DataError("{} has no tokens", path);
          document_starts_.push_back(static_cast<std::int64_t>(start));
        }
        tokens.shrink_to_fit();
        size_ = static_cast<std::int64_t>(tokens.size());
      },
      tokens_);
  CAROUSEL_CHECK(size_ > 0, "a text corpus of no files");
}

void TextCorpus::read(std::int64_t begin, std::span<std::int32_t> tokens) const {
  CAROUSEL_CHECK(begin >= 0 && begin + static_cast<std::int64_t>(tokens.size()) <= size_,
                 "tokens {}+{} of a corpus of {}", begin, tokens.size(), size_);
  std::visit(
      [&](const auto& all) { std::copy_n(all.begin() + begin, tokens.size(), tokens.begin()); },
      tokens_);
}

std::string TextCorpus::describe() const {
  return describe_files(paths_.front(), paths_.back(), paths_.size());
}

}  // namespace carousel
