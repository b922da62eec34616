#include "train/units.h"

#include <fmt/format.h>

#include <array>

namespace carousel {

std::string with_unit(double value, double base, const std::string& unit) {
  constexpr std::array kDecimal = {"", "k", "M", "G", "T", "P", "E"};
  constexpr std::array kBinary = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
  const auto& prefixes = base == 1024.0 ? kBinary : kDecimal;
  std::size_t p = 0;
  while (value >= base && p + 1 < prefixes.size()) {
    value /= base;
    ++p;
  }
  const std::string text = prefixes[p] + unit;
  return fmt::format("{:.4g}{}{}", value, text.empty() ? "" : " ", text);
}

std::string bytes_text(std::uint64_t bytes) {
  return with_unit(static_cast<double>(bytes), 1024.0, "B");
}

}  // namespace carousel
