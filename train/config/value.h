// Values of keys: from YAML nodes into members and back to text, one pair of functions a type.
#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "data/config.h"
#include "train/config/config.h"

namespace carousel {

/// Allowed values of a number, or of each number of a list.
struct Range {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool open_min = false;  ///< min itself is excluded
  bool open_max = false;

  bool contains(double x) const;
  /// "at least 1", "above 0", "in [0, 1)"; empty if everything is allowed.
  std::string to_string() const;
};

/// What a key accepts beyond its type.
struct Rule {
  Range range;
  std::string unit;                  ///< of numbers; may be empty
  std::vector<std::string> choices;  ///< words; empty: any text
  bool or_path = false;              ///< besides the choices also a path, which has a '/' or a '.'
};

/// Called with the place and the text of each error of a value; the member is then unspecified.
using Report = std::function<void(const YAML::Mark&, const std::string&)>;

void parse_value(const YAML::Node& node, const Rule& rule, const Report& report, bool& out);
void parse_value(const YAML::Node& node, const Rule& rule, const Report& report, int& out);
void parse_value(const YAML::Node& node, const Rule& rule, const Report& report, std::int64_t& out);
void parse_value(const YAML::Node& node, const Rule& rule, const Report& report, double& out);
void parse_value(const YAML::Node& node, const Rule& rule, const Report& report, std::string& out);
/// A list of paths, or one path.
void parse_value(const YAML::Node& node, const Rule& rule, const Report& report,
                 std::vector<std::string>& out);
void parse_value(const YAML::Node& node, const Rule& rule, const Report& report,
                 std::vector<std::int64_t>& out);
void parse_value(const YAML::Node& node, const Rule& rule, const Report& report, LengthRange& out);
/// A fraction, a path or a list of paths; null for none.
void parse_value(const YAML::Node& node, const Rule& rule, const Report& report,
                 ValidationConfig& out);
/// A list of two numbers.
void parse_value(const YAML::Node& node, const Rule& rule, const Report& report,
                 std::tuple<double&, double&> out);

/// YAML text of a value that parse_value() reads back; nothing where it is unset.
std::optional<std::string> format_value(bool value);
std::optional<std::string> format_value(int value);
std::optional<std::string> format_value(std::int64_t value);
std::optional<std::string> format_value(double value);
std::optional<std::string> format_value(const std::string& value);
std::optional<std::string> format_value(const std::vector<std::string>& value);
std::optional<std::string> format_value(const std::vector<std::int64_t>& value);
std::optional<std::string> format_value(LengthRange value);
std::optional<std::string> format_value(const ValidationConfig& value);
std::optional<std::string> format_value(std::tuple<const double&, const double&> value);

/// "an integer", …: what an error says was expected, and what the list of keys shows.
inline std::string_view type_name(const bool&) { return "true or false"; }
inline std::string_view type_name(const int&) { return "an integer"; }
inline std::string_view type_name(const std::int64_t&) { return "an integer"; }
inline std::string_view type_name(const double&) { return "a number"; }
inline std::string_view type_name(const std::string&) { return "text"; }
inline std::string_view type_name(const std::vector<std::string>&) {
  return "a path or a list of paths";
}
inline std::string_view type_name(const std::vector<std::int64_t>&) { return "a list of integers"; }
inline std::string_view type_name(const LengthRange&) { return "two integers [min, max]"; }
inline std::string_view type_name(const ValidationConfig&) {
  return "a fraction, a path or a list of paths";
}
inline std::string_view type_name(const std::tuple<double&, double&>&) {
  return "two numbers [first, second]";
}

/// True for `~`, `null` and nothing at all.
inline bool is_null(const YAML::Node& node) { return node.IsNull(); }

// --- optional members ---------------------------------------------------------------------------

template <class T>
void parse_value(const YAML::Node& node, const Rule& rule, const Report& report,
                 std::optional<T>& out) {
  out.reset();
  if (!is_null(node)) parse_value(node, rule, report, out.emplace());
}
template <class T>
std::optional<std::string> format_value(const std::optional<T>& value) {
  return value ? format_value(*value) : std::nullopt;
}
template <class T>
std::string_view type_name(const std::optional<T>&) {
  return type_name(T{});
}

// --- enumerations -------------------------------------------------------------------------------

/// The words of an enumeration: specialised for each one that a key has.
template <class E>
struct Words;
template <>
struct Words<ModelFamily> {
  static constexpr std::pair<std::string_view, ModelFamily> kAll[] = {
      {"xlstm_large", ModelFamily::kXlstmLarge}, {"xlstm", ModelFamily::kXlstm}};
};
template <>
struct Words<ScheduleType> {
  static constexpr std::pair<std::string_view, ScheduleType> kAll[] = {
      {"constant", ScheduleType::kConstant},
      {"linear", ScheduleType::kLinear},
      {"cosine", ScheduleType::kCosine},
      {"wsd", ScheduleType::kWsd}};
};
template <>
struct Words<DeviceChoice> {
  static constexpr std::pair<std::string_view, DeviceChoice> kAll[] = {
      {"auto", DeviceChoice::kAuto},
      {"cpu", DeviceChoice::kUseCpu},
      {"cuda", DeviceChoice::kUseCuda}};
};
/// The precisions of a run.
template <>
struct Words<DType> {
  static constexpr std::pair<std::string_view, DType> kAll[] = {{"f32", DType::kF32},
                                                                {"bf16", DType::kBF16}};
};

template <class E>
concept Enumeration = requires {
  Words<E>::kAll;
};

template <Enumeration E>
std::vector<std::string> words() {
  std::vector<std::string> all;
  for (const auto& [word, value] : Words<E>::kAll) all.emplace_back(word);
  return all;
}
template <Enumeration E>
void parse_value(const YAML::Node& node, const Rule& rule, const Report& report, E& out) {
  std::string text;  // the field's rule has words<E>() as its choices
  parse_value(node, rule, report, text);
  for (const auto& [word, value] : Words<E>::kAll) {
    if (text == word) out = value;
  }
}
template <Enumeration E>
std::optional<std::string> format_value(E value) {
  for (const auto& [word, candidate] : Words<E>::kAll) {
    if (value == candidate) return std::string(word);
  }
  return std::nullopt;
}
template <Enumeration E>
std::string_view type_name(const E&) {
  return "a word";
}

}  // namespace carousel
