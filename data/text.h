// Checked traversal of text.
#pragma once

#include "core/base/error.h"
#include "data/tokenizer.h"
#include "data/utf8.h"

namespace carousel {

/// Throws DataError: the byte at text[offset] is NUL or begins no valid character.
[[noreturn]] void throw_not_text(std::string_view text, std::size_t offset,
                                 const TextOrigin& origin);

/// Calls visit(code point, byte offset in `text`) for every character. Throws DataError at the
/// first NUL byte (a sign of binary data) or invalid UTF-8.
template <class Visit>
void for_each_character(std::string_view text, const TextOrigin& origin, Visit&& visit) {
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint c = decode_utf8(text, i);
    if (c.length == 0 || c.value == 0) [[unlikely]] {
      throw_not_text(text, i, origin);
    }
    visit(c.value, i);
    i += static_cast<std::size_t>(c.length);
  }
}

}  // namespace carousel
