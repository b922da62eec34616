// SentencePiece models (.model files), through the library.
#pragma once

#include "data/tokenizer.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace carousel {

/// The document token is the model's <s>, if it has one. encode() adds neither <s> nor </s>.
class SentencePieceTokenizer final : public Tokenizer {
 public:
  /// encode() takes a document as a whole, at a few hundred bytes of memory per byte of text.
  static constexpr std::size_t kMaxDocumentBytes = std::size_t{1} << 24;

  /// `model`: the bytes of a .model file. Throws DataError naming `where` if the library refuses
  /// it.
  SentencePieceTokenizer(std::string model, const std::string& where);
  ~SentencePieceTokenizer() override;

  static std::unique_ptr<SentencePieceTokenizer> from_file(const std::string& path);
  static std::unique_ptr<SentencePieceTokenizer> from_json(const nlohmann::json& json,
                                                           const std::string& where);

  std::string_view kind() const override { return "sentencepiece"; }
  std::int32_t vocab_size() const override;
  std::optional<std::int32_t> document_token() const override;
  /// Text must be valid UTF-8 without NUL bytes and at most kMaxDocumentBytes long.
  std::vector<std::int32_t> encode(std::string_view text, const TextOrigin& origin) const override;
  bool encodes_in_parts() const override { return false; }
  /// Holds the whole model, so that a run does not depend on the file it was read from.
  nlohmann::json to_json() const override;

 protected:
  std::string bytes_of(std::int32_t token, bool& at_start) const override;

 private:
  std::string model_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
};

}  // namespace carousel
