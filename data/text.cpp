#include "data/text.h"

namespace carousel {

void throw_not_text(std::string_view text, std::size_t offset, const TextOrigin& origin) {
  const unsigned byte = static_cast<unsigned char>(text[offset]);
  if (byte == 0) {
    throw DataError(
        "{}: NUL byte at offset {}: this is binary data, not text; name a text file, or train on "
        "bytes with tokenizer: byte",
        origin.name, origin.offset + offset);
  }
  throw DataError(
      "{}: byte 0x{:02X} at offset {} is not valid UTF-8; convert the file to UTF-8 (for example "
      "with iconv), or train on bytes with tokenizer: byte",
      origin.name, byte, origin.offset + offset);
}

}  // namespace carousel
