// UTF-8, checked: overlong forms, surrogates and values above U+10FFFF are invalid (RFC 3629).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace carousel {

inline constexpr char32_t kMaxCodePoint = 0x10FFFF;

/// One decoded code point and the bytes it takes, 1 to 4; length 0 says that the bytes are invalid.
struct CodePoint {
  char32_t value = 0;
  int length = 0;
};

/// Decodes the code point that begins at text[offset], offset < text.size().
inline CodePoint decode_utf8(std::string_view text, std::size_t offset) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[offset + i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  // Leads below 0xC2 are continuations or overlong; above 0xF4 they exceed U+10FFFF.
  if (lead < 0xC2 || lead > 0xF4) return {};
  const int length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (text.size() - offset < static_cast<std::size_t>(length)) return {};
  char32_t value = lead & (0x7Fu >> length);
  for (int i = 1; i < length; ++i) {
    const unsigned next = byte(static_cast<std::size_t>(i));
    if ((next & 0xC0u) != 0x80u) return {};
    value = value << 6 | (next & 0x3Fu);
  }
  const bool overlong = (length == 3 && value < 0x800) || (length == 4 && value < 0x10000);
  const bool surrogate = value >= 0xD800 && value < 0xE000;
  if (overlong || surrogate || value > kMaxCodePoint) return {};
  return {value, length};
}

/// Appends the UTF-8 form of `value`, which must be a valid code point.
void append_utf8(std::string& text, char32_t value);

/// How many bytes at the end of `text` (0 to 3) may still become a code point when more bytes
/// follow.
std::size_t unfinished_utf8(std::string_view text);

/// "'é' (U+00E9)"; control characters appear as their number alone.
std::string name_of_character(char32_t value);

}  // namespace carousel
