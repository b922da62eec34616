// Typed fields of an untrusted JSON object.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace carousel {

/// A scalar as JSON; of arrays and objects the type alone, as to print them recurses as deep as
/// they are nested.
std::string shown(const nlohmann::json& value);

/// The string under `key`. Throws DataError naming `where` and `key` if `json` is not an object or
/// has no such string.
const std::string& json_string(const nlohmann::json& json, const char* key,
                               const std::string& where);

/// The integer under `key`, which must lie in [low, high]. Throws DataError likewise.
std::int64_t json_integer(const nlohmann::json& json, const char* key, std::int64_t low,
                          std::int64_t high, const std::string& where);

}  // namespace carousel
