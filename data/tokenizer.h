// Tokenizers: text to token ids and back. A run keeps its tokenizer as tokenizer.json, so that
// generating and evaluating need nothing but the run directory.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace carousel {

/// Where a text comes from: errors of encode() name it and add `offset` to their byte offsets.
struct TextOrigin {
  std::string name = "the text";
  std::uint64_t offset = 0;
};

/// Immutable after construction; all members may be called from several threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// "byte", "char", "none" or "sentencepiece".
  virtual std::string_view kind() const = 0;
  /// Token ids are [0, vocab_size()).
  virtual std::int32_t vocab_size() const = 0;
  /// The token that stands in front of every document, if the vocabulary has one.
  virtual std::optional<std::int32_t> document_token() const { return std::nullopt; }

  /// Throws DataError, with the origin, the byte offset and the remedy, for text that the
  /// vocabulary cannot express.
  virtual std::vector<std::int32_t> encode(std::string_view text,
                                           const TextOrigin& origin = {}) const = 0;
  /// True if a text may be encoded in parts cut between any two characters, with the same result.
  virtual bool encodes_in_parts() const = 0;

  /// The bytes that `token` contributes to a text, perhaps a part of a character only. `at_start`
  /// says that no text stands before it, and is cleared unless `token` is a document or control
  /// token, which contribute nothing. Throws DataError if `token` is not in the vocabulary.
  std::string decode_token(std::int32_t token, bool& at_start) const;
  /// The bytes of all tokens in turn: the inverse of encode() for byte and char.
  std::string decode(std::span<const std::int32_t> tokens) const;

  /// Everything that tokenizer_from_json() needs.
  virtual nlohmann::json to_json() const = 0;

 protected:
  /// decode_token() for a token that is known to be in the vocabulary.
  virtual std::string bytes_of(std::int32_t token, bool& at_start) const = 0;
};

/// Decodes tokens one by one into text that is valid UTF-8 at every moment: bytes of an unfinished
/// character wait for the rest, bytes that are no character become U+FFFD.
class StreamDecoder {
 public:
  /// `at_start`: the stream begins a text, rather than continuing one. `tokenizer` must outlive the
  /// decoder.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool at_start = true)
      : tokenizer_(tokenizer), at_start_(at_start) {}

  /// The text that `token` completes, often one character, sometimes none.
  std::string push(std::int32_t token);
  /// What still waits, as U+FFFD; empties the decoder.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
  bool at_start_;
};

/// Rebuilds a tokenizer from to_json()'s output, which is checked as any file is. Throws DataError
/// naming `where` and the offending key.
std::unique_ptr<Tokenizer> tokenizer_from_json(const nlohmann::json& json,
                                               const std::string& where);

/// Reads and writes tokenizer.json; writing is atomic. Both throw DataError.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path);
void save_tokenizer(const Tokenizer& tokenizer, const std::string& path);

}  // namespace carousel
