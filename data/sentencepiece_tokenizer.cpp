#include "data/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/error.h"
#include "core/base/file.h"
#include "data/base64.h"
#include "data/files.h"
#include "data/json_fields.h"
#include "data/text.h"

namespace carousel {
namespace {

constexpr std::size_t kMaxModelBytes = std::size_t{1} << 27;
constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581 stands for a space

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(std::string model, const std::string& where)
    : model_(std::move(model)),
      processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
  if (model_.empty() || model_.size() > kMaxModelBytes) {
    throw DataError("{}: a SentencePiece model of {} bytes; expected 1 to {}", where, model_.size(),
                    kMaxModelBytes);
  }
  const auto status = processor_->LoadFromSerializedProto(model_);
  if (!status.ok()) {
    throw DataError("{} is not a usable SentencePiece model: {}", where, status.ToString());
  }
  if (processor_->GetPieceSize() <= 0) throw DataError("{}: the model has no pieces", where);
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

std::unique_ptr<SentencePieceTokenizer> SentencePieceTokenizer::from_file(const std::string& path) {
  const MappedFile file(path, ExitCode::kData);
  return std::make_unique<SentencePieceTokenizer>(std::string(file.text()), path);
}

std::unique_ptr<SentencePieceTokenizer> SentencePieceTokenizer::from_json(
    const nlohmann::json& json, const std::string& where) {
  auto model = base64_decode(json_string(json, "model", where));
  if (!model) throw DataError("{}: key 'model' is not Base64", where);
  return std::make_unique<SentencePieceTokenizer>(*std::move(model), where);
}

std::int32_t SentencePieceTokenizer::vocab_size() const { return processor_->GetPieceSize(); }

std::optional<std::int32_t> SentencePieceTokenizer::document_token() const {
  const int id = processor_->bos_id();
  return id >= 0 ? std::optional<std::int32_t>(id) : std::nullopt;
}

std::vector<std::int32_t> SentencePieceTokenizer::encode(std::string_view text,
                                                         const TextOrigin& origin) const {
  if (text.size() > kMaxDocumentBytes) {
    throw DataError("{}: {} bytes; SentencePiece encodes documents of at most {}; split the file",
                    origin.name, text.size(), kMaxDocumentBytes);
  }
  for_each_character(text, origin, [](char32_t, std::size_t) {});
  std::vector<int> tokens;
  const auto status = processor_->Encode(text, &tokens);
  if (!status.ok()) throw DataError("{}: SentencePiece: {}", origin.name, status.ToString());
  return tokens;
}

std::string SentencePieceTokenizer::bytes_of(std::int32_t token, bool& at_start) const {
  if (processor_->IsControl(token)) return {};
  const bool first = std::exchange(at_start, false);
  const std::string& piece = processor_->IdToPiece(token);
  if (processor_->IsByte(token)) {
    unsigned byte = 0;  // "<0xAB>"
    std::from_chars(piece.data() + 3, piece.data() + piece.size() - 1, byte, 16);
    return std::string(1, static_cast<char>(byte));
  }
  // The library knows whether the model's first space was added by itself and must go.
  if (first || processor_->IsUnknown(token)) return processor_->DecodeIds({token});
  std::string text;
  for (std::size_t i = 0; i < piece.size();) {
    const bool space = piece.compare(i, kSpaceSymbol.size(), kSpaceSymbol) == 0;
    text.push_back(space ? ' ' : piece[i]);
    i += space ? kSpaceSymbol.size() : 1;
  }
  return text;
}

nlohmann::json SentencePieceTokenizer::to_json() const {
  return {{"kind", kind()}, {"model", base64_encode(model_)}};
}

}  // namespace carousel
