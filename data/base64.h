// Base64 (RFC 4648, with padding): bytes inside JSON.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace carousel {

std::string base64_encode(std::string_view bytes);

/// The bytes, or nothing if `text` is not canonical Base64.
std::optional<std::string> base64_decode(std::string_view text);

}  // namespace carousel
