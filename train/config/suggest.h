// "Did you mean …?"
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace carousel {

/// Edits that turn `a` into `b`: insertions, deletions, substitutions and swaps of neighbours
/// (optimal string alignment).
int edit_distance(std::string_view a, std::string_view b);

/// The candidate closest to `word`, the first of equals; nothing if none is close enough to be a
/// slip of the pen (one edit in three letters, three at most).
std::optional<std::string> closest(std::string_view word, std::span<const std::string> candidates);

}  // namespace carousel
