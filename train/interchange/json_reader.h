// Reading of config.json files: all problems of a file are collected, then reported at once.
#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "data/json_fields.h"

namespace carousel {

using nlohmann::json;

inline constexpr std::int64_t kMaxInteger = INT32_MAX;

/// Throws CheckpointError that names `path` if `text` is no JSON object.
inline json parse_json_object(const std::filesystem::path& path, const std::string& text) {
  json object;
  try {
    object = json::parse(text);
  } catch (const json::exception& e) {
    throw CheckpointError("'{}' is broken: {}", path.string(),
                          std::string(e.what()).substr(0, 300));
  }
  if (!object.is_object()) throw CheckpointError("'{}' is not a JSON object", path.string());
  return object;
}

// Reads keys of one JSON object and collects what is wrong with them.
class JsonReader {
 public:
  /// `object` must outlive the reader.
  explicit JsonReader(const json& object) : object_(&object), problems_(&own_) {}
  JsonReader(const JsonReader&) = delete;
  JsonReader& operator=(const JsonReader&) = delete;

  /// A reader of the object at `key`, which adds to the same problems; of an empty object if there
  /// is none.
  JsonReader at(const char* key) {
    const json* value = find(key);
    if (value != nullptr && !value->is_object()) {
      fail(fmt::format("{} is {}, must be an object", key, shown(*value)));
      value = nullptr;
    }
    return JsonReader(value != nullptr ? *value : empty_object(), prefix_ + key + ".", problems_);
  }
  bool has(const char* key) const { return find(key) != nullptr; }
  /// Whether the key is there with the value null.
  bool is_null(const char* key) const {
    const auto found = object_->find(key);
    return found != object_->end() && found->is_null();
  }

  void fail(const std::string& problem) { *problems_ += "\n  " + prefix_ + problem; }
  const std::string& problems() const { return *problems_; }

  template <class T>
  void integer(const char* key, T& out, std::int64_t max = kMaxInteger) {
    if (const json* value = find(key)) {
      if (value->is_number_unsigned() && *value >= 1 && *value <= max) {
        out = value->get<T>();
      } else {
        fail(fmt::format("{} is {}, must be a whole number from 1 to {}", key, shown(*value), max));
      }
    }
  }
  // `null_value` is what null means, NaN if it means nothing.
  void number(const char* key, double& out, double min, double max, double null_value = NAN) {
    const auto found = object_->find(key);
    if (found == object_->end()) return;
    if (found->is_null() && !std::isnan(null_value)) {
      out = null_value;
    } else if (found->is_number() && found->get<double>() >= min && found->get<double>() <= max) {
      out = found->get<double>();
    } else {
      fail(fmt::format("{} is {}, must be a number from {} to {}", key, shown(*found), min, max));
    }
  }
  void boolean(const char* key, bool& out) {
    if (const json* value = find(key)) {
      if (value->is_boolean()) {
        out = value->get<bool>();
      } else {
        fail(fmt::format("{} is {}, must be true or false", key, shown(*value)));
      }
    }
  }
  // Two keys for one number: either may be missing, both must agree.
  void either(const char* key, const char* other, std::int64_t& out,
              std::int64_t max = kMaxInteger) {
    std::int64_t first = 0;
    std::int64_t second = 0;
    integer(key, first, max);
    integer(other, second, max);
    if (find(key) == nullptr && find(other) == nullptr) {
      fail(fmt::format("neither {} nor {} is given", key, other));
    } else if (first != 0 && second != 0 && first != second) {
      fail(fmt::format("{} is {}, but {} is {}", key, first, other, second));
    }
    out = first != 0 ? first : second;
  }
  void required(const char* key, std::int64_t& out) {
    if (find(key) == nullptr) fail(fmt::format("{} is missing", key));
    integer(key, out);
  }
  void must_be(const char* key, const std::vector<json>& allowed, const char* why) {
    const json* value = find(key);
    if (value == nullptr || std::ranges::find(allowed, *value) != allowed.end()) return;
    fail(fmt::format("{} is {}: {}", key, shown(*value), why));
  }

 private:
  JsonReader(const json& object, std::string prefix, std::string* problems)
      : object_(&object), prefix_(std::move(prefix)), problems_(problems) {}

  static const json& empty_object() {
    static const json object = json::object();
    return object;
  }

  // transformers writes null for "not given".
  const json* find(const char* key) const {
    const auto found = object_->find(key);
    return found == object_->end() || found->is_null() ? nullptr : &*found;
  }

  const json* object_;
  std::string prefix_;
  std::string own_;
  std::string* problems_;
};

}  // namespace carousel
