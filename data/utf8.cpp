#include "data/utf8.h"

#include <fmt/format.h>

namespace carousel {

void append_utf8(std::string& text, char32_t value) {
  const auto push = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (value < 0x80) {
    push(value);
  } else if (value < 0x800) {
    push(0xC0 | value >> 6);
    push(0x80 | (value & 0x3F));
  } else if (value < 0x10000) {
    push(0xE0 | value >> 12);
    push(0x80 | (value >> 6 & 0x3F));
    push(0x80 | (value & 0x3F));
  } else {
    push(0xF0 | value >> 18);
    push(0x80 | (value >> 12 & 0x3F));
    push(0x80 | (value >> 6 & 0x3F));
    push(0x80 | (value & 0x3F));
  }
}

std::size_t unfinished_utf8(std::string_view text) {
  // A prefix can be completed if it decodes once zero bits (or, where those would make it overlong,
  // the largest allowed continuation) are appended.
  for (std::size_t n = 1; n <= 3 && n <= text.size(); ++n) {
    const std::string_view tail = text.substr(text.size() - n);
    if ((static_cast<unsigned char>(tail[0]) & 0xC0u) == 0x80u) continue;
    for (const char fill : {'\x80', '\xBF'}) {
      std::string candidate(tail);
      while (candidate.size() < 4) {
        candidate.push_back(fill);
        const CodePoint c = decode_utf8(candidate, 0);
        if (c.length > static_cast<int>(n)) return n;
      }
    }
    return 0;
  }
  return 0;
}

std::string name_of_character(char32_t value) {
  const auto number = fmt::format("U+{:04X}", static_cast<std::uint32_t>(value));
  if (value < 0x20 || (value >= 0x7F && value < 0xA0)) return number;
  std::string text;
  append_utf8(text, value);
  return fmt::format("'{}' ({})", text, number);
}

}  // namespace carousel
