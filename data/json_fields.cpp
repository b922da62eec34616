#include "data/json_fields.h"

#include <nlohmann/json.hpp>

#include "core/base/error.h"

namespace carousel {
namespace {

const nlohmann::json& field(const nlohmann::json& json, const char* key, const std::string& where) {
  if (!json.is_object())
    throw DataError("{}: expected a JSON object, found {}", where, json.type_name());
  const auto it = json.find(key);
  if (it == json.end()) throw DataError("{}: key '{}' is missing", where, key);
  return *it;
}

}  // namespace

std::string shown(const nlohmann::json& value) {
  if (value.is_structured()) return value.type_name();
  return value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

const std::string& json_string(const nlohmann::json& json, const char* key,
                               const std::string& where) {
  const nlohmann::json& value = field(json, key, where);
  if (!value.is_string()) {
    throw DataError("{}: key '{}' must be a string, found {}", where, key, value.type_name());
  }
  return value.get_ref<const std::string&>();
}

std::int64_t json_integer(const nlohmann::json& json, const char* key, std::int64_t low,
                          std::int64_t high, const std::string& where) {
  const nlohmann::json& value = field(json, key, where);
  // JSON's unsigned integers above int64's range would wrap on conversion.
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() || value.get<std::uint64_t>() <= INT64_MAX);
  if (!fits || value.get<std::int64_t>() < low || value.get<std::int64_t>() > high) {
    throw DataError("{}: key '{}' must be an integer in [{}, {}], found {}", where, key, low, high,
                    shown(value));
  }
  return value.get<std::int64_t>();
}

}  // namespace carousel
