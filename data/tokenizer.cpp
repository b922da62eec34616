#include "data/tokenizer.h"

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/file.h"
#include "data/byte_tokenizer.h"
#include "data/char_tokenizer.h"
#include "data/files.h"
#include "data/id_tokenizer.h"
#include "data/json_fields.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/utf8.h"

namespace carousel {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
constexpr std::size_t kMaxTokenizerBytes = std::size_t{1} << 28;

}  // namespace

std::string Tokenizer::decode_token(std::int32_t token, bool& at_start) const {
  if (token < 0 || token >= vocab_size()) {
    throw DataError(
        "token {} is not in the {} tokenizer's vocabulary of {}; was the model trained with "
        "another "
        "tokenizer?",
        token, kind(), vocab_size());
  }
  return bytes_of(token, at_start);
}

std::string Tokenizer::decode(std::span<const std::int32_t> tokens) const {
  std::string text;
  bool at_start = true;
  for (const std::int32_t token : tokens) text += decode_token(token, at_start);
  return text;
}

std::string StreamDecoder::push(std::int32_t token) {
  pending_ += tokenizer_.decode_token(token, at_start_);
  const std::size_t complete = pending_.size() - unfinished_utf8(pending_);
  std::string text;
  for (std::size_t i = 0; i < complete;) {
    const auto length = static_cast<std::size_t>(decode_utf8(pending_, i).length);
    if (length == 0) {
      text += kReplacement;
      ++i;
    } else {
      text.append(pending_, i, length);
      i += length;
    }
  }
  pending_.erase(0, complete);
  return text;
}

std::string StreamDecoder::finish() {
  const std::string text(pending_.empty() ? std::string_view{} : kReplacement);
  pending_.clear();
  return text;
}

std::unique_ptr<Tokenizer> tokenizer_from_json(const nlohmann::json& json,
                                               const std::string& where) {
  if (const auto model = json.find("model"); model != json.end() && model->is_object()) {
    throw DataError(
        "{}: a tokenizer of Hugging Face's, which Carousel cannot read; name the model's "
        "SentencePiece .model file, or train on token shards with data.tokenizer: none",
        where);
  }
  const std::string kind = json_string(json, "kind", where);
  if (kind == "byte") return std::make_unique<ByteTokenizer>();
  if (kind == "char") return CharTokenizer::from_json(json, where);
  if (kind == "none") return IdTokenizer::from_json(json, where);
  if (kind == "sentencepiece") return SentencePieceTokenizer::from_json(json, where);
  throw DataError("{}: unknown tokenizer kind '{}'; it is one of byte, char, none, sentencepiece",
                  where, kind);
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path) {
  const MappedFile file(path, ExitCode::kData);
  if (file.bytes().size() > kMaxTokenizerBytes) {
    throw DataError("{}: {} bytes; a tokenizer has at most {}", path, file.bytes().size(),
                    kMaxTokenizerBytes);
  }
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(file.text());
  } catch (const nlohmann::json::exception& error) {
    throw DataError("{} is not JSON: {}", path, error.what());
  }
  return tokenizer_from_json(json, path);
}

void save_tokenizer(const Tokenizer& tokenizer, const std::string& path) {
  const std::string text = tokenizer.to_json().dump(2) + "\n";
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(text)));
  file.commit();
}

}  // namespace carousel
