// Numbers for people.
#pragma once

#include <cstdint>
#include <string>

namespace carousel {

/// Four digits and a prefix: with_unit(1234567, 1000.0, "FLOP") is "1.235 MFLOP". Base 1024 has the
/// prefixes Ki, Mi, …
std::string with_unit(double value, double base, const std::string& unit);
/// "20.44 MiB".
std::string bytes_text(std::uint64_t bytes);

}  // namespace carousel
