#include "train/config/value.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "train/config/suggest.h"

namespace carousel {
namespace {

enum class Syntax { kInvalid, kTooLarge, kValid };

/// Reads all of `text` as a decimal number, which may have a sign.
template <class T>
Syntax read_number(std::string_view text, T& out) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, out);
  if (stop != end || error == std::errc::invalid_argument) return Syntax::kInvalid;
  return error == std::errc{} ? Syntax::kValid : Syntax::kTooLarge;
}

/// A scalar written without quotes: only such a one may be a number or a truth value.
bool is_plain(const YAML::Node& node) { return node.IsScalar() && node.Tag() == "?"; }

/// The value as an error message shows it.
std::string shown(const YAML::Node& node) {
  if (node.IsMap()) return "a mapping";
  if (node.IsSequence()) return "a list";
  if (!node.IsScalar()) return "nothing";
  constexpr std::size_t kLongest = 60;
  std::string text = node.Scalar();
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "…";
  return is_plain(node) ? fmt::format("'{}'", text) : fmt::format("the text \"{}\"", text);
}

/// Whether the node is text; reports an error otherwise. Tags such as !env would be ignored.
bool check_text(const YAML::Node& node, std::string_view expected, const Report& report) {
  if (!node.IsScalar()) {
    report(node.Mark(), fmt::format("expected {}, got {}", expected, shown(node)));
    return false;
  }
  const std::string& tag = node.Tag();
  if (tag != "?" && tag != "!" && tag != "tag:yaml.org,2002:str") {
    report(node.Mark(), fmt::format("the tag '{}' is not supported; write the value alone", tag));
    return false;
  }
  return true;
}

std::string with_unit(const Rule& rule) {
  return rule.unit.empty() ? "" : fmt::format(" ({})", rule.unit);
}

void report_range(const YAML::Node& node, const Rule& rule, const Report& report) {
  report(node.Mark(), fmt::format("{} is out of range: it must be {}{}", node.Scalar(),
                                  rule.range.to_string(), with_unit(rule)));
}

template <class T>
void parse_integer(const YAML::Node& node, const Rule& rule, const Report& report, T& out) {
  double real = 0.0;
  std::int64_t wide = 0;
  const Syntax syntax = is_plain(node) ? read_number(node.Scalar(), wide) : Syntax::kInvalid;
  if (syntax == Syntax::kInvalid) {
    std::string hint;
    if (is_plain(node) && read_number(node.Scalar(), real) == Syntax::kValid &&
        std::abs(real) < 0x1.0p53 && real == std::floor(real)) {
      hint = fmt::format("; write {}", static_cast<std::int64_t>(real));
    }
    report(node.Mark(), fmt::format("expected an integer, got {}{}", shown(node), hint));
    return;
  }
  if (syntax == Syntax::kTooLarge || !std::in_range<T>(wide)) {
    report(node.Mark(), fmt::format("{} does not fit in {} bits", shown(node), 8 * sizeof(T)));
  } else if (!rule.range.contains(static_cast<double>(wide))) {
    report_range(node, rule, report);
  } else {
    out = static_cast<T>(wide);
  }
}

bool is_number(const YAML::Node& node) {
  double real = 0.0;
  return is_plain(node) && read_number(node.Scalar(), real) != Syntax::kInvalid;
}

void parse_path(const YAML::Node& node, const Report& report, std::vector<std::string>& out) {
  if (!node.IsScalar() || node.Scalar().empty()) {
    report(node.Mark(),
           fmt::format("expected a path, got {}", node.IsScalar() ? "an empty text" : shown(node)));
    return;
  }
  out.push_back(node.Scalar());
}

template <class T>
std::string flow_list(const std::vector<T>& values) {
  std::vector<std::string> items;
  for (const T& value : values) items.push_back(*format_value(value));
  return fmt::format("[{}]", fmt::join(items, ", "));
}

}  // namespace

bool Range::contains(double x) const {
  return (open_min ? x > min : x >= min) && (open_max ? x < max : x <= max);
}

std::string Range::to_string() const {
  if (std::isinf(max)) {
    if (std::isinf(min)) return "";
    return fmt::format("{} {}", open_min ? "above" : "at least", min);
  }
  if (std::isinf(min)) return fmt::format("{} {}", open_max ? "below" : "at most", max);
  return fmt::format("in {}{}, {}{}", open_min ? '(' : '[', min, max, open_max ? ')' : ']');
}

// --- parsing ------------------------------------------------------------------------------------

void parse_value(const YAML::Node& node, const Rule&, const Report& report, bool& out) {
  const std::string text = is_plain(node) ? node.Scalar() : "";
  out = text == "true";
  if (out || text == "false") return;
  report(node.Mark(), fmt::format("expected true or false, got {}", shown(node)));
}

void parse_value(const YAML::Node& node, const Rule& rule, const Report& report, int& out) {
  parse_integer(node, rule, report, out);
}

void parse_value(const YAML::Node& node, const Rule& rule, const Report& report,
                 std::int64_t& out) {
  parse_integer(node, rule, report, out);
}

void parse_value(const YAML::Node& node, const Rule& rule, const Report& report, double& out) {
  double value = 0.0;
  const Syntax syntax = is_plain(node) ? read_number(node.Scalar(), value) : Syntax::kInvalid;
  if (syntax == Syntax::kInvalid) {
    report(node.Mark(), fmt::format("expected a number, got {}", shown(node)));
  } else if (syntax == Syntax::kTooLarge || !std::isfinite(value)) {
    report(node.Mark(), fmt::format("expected a finite number, got {}", shown(node)));
  } else if (!rule.range.contains(value)) {
    report_range(node, rule, report);
  } else {
    out = value;
  }
}

void parse_value(const YAML::Node& node, const Rule& rule, const Report& report, std::string& out) {
  if (!check_text(node, "text", report)) return;
  const std::string& text = node.Scalar();
  const bool is_path = rule.or_path && text.find_first_of("/.") != std::string::npos;
  const bool known =
      std::find(rule.choices.begin(), rule.choices.end(), text) != rule.choices.end();
  if (rule.choices.empty() || known || is_path) {
    out = text;
    return;
  }
  const auto suggestion = closest(text, rule.choices);
  report(node.Mark(),
         fmt::format("unknown value {}; {}", shown(node),
                     suggestion
                         ? fmt::format("did you mean '{}'?", *suggestion)
                         : fmt::format("it is one of {}{}", fmt::join(rule.choices, ", "),
                                       rule.or_path ? ", or a path (with a '/' or a '.')" : "")));
}

void parse_value(const YAML::Node& node, const Rule&, const Report& report,
                 std::vector<std::string>& out) {
  out.clear();
  if (node.IsSequence() && node.size() == 0) {
    report(node.Mark(), "expected at least one path, got an empty list");
  } else if (node.IsSequence()) {
    for (const YAML::Node& item : node) parse_path(item, report, out);
  } else {
    parse_path(node, report, out);
  }
}

void parse_value(const YAML::Node& node, const Rule& rule, const Report& report,
                 std::vector<std::int64_t>& out) {
  out.clear();
  if (!node.IsSequence()) {
    report(node.Mark(), fmt::format("expected a list of integers, got {}", shown(node)));
    return;
  }
  for (const YAML::Node& item : node) parse_integer(item, rule, report, out.emplace_back());
}

void parse_value(const YAML::Node& node, const Rule& rule, const Report& report, LengthRange& out) {
  if (!node.IsSequence() || node.size() != 2) {
    report(node.Mark(), fmt::format("expected two integers [min, max], got {}", shown(node)));
    return;
  }
  out = {};
  parse_integer(node[0], rule, report, out.min);
  parse_integer(node[1], rule, report, out.max);
  if (out.min > out.max && out.max > 0) {
    report(node.Mark(), fmt::format("min {} is greater than max {}", out.min, out.max));
  }
}

void parse_value(const YAML::Node& node, const Rule& rule, const Report& report,
                 ValidationConfig& out) {
  out = {};
  if (is_null(node)) return;
  if (is_number(node)) {
    parse_value(node, rule, report, out.fraction);
  } else {
    parse_value(node, rule, report, out.files);
  }
}

void parse_value(const YAML::Node& node, const Rule& rule, const Report& report,
                 std::tuple<double&, double&> out) {
  if (!node.IsSequence() || node.size() != 2) {
    report(node.Mark(), fmt::format("expected two numbers [first, second], got {}", shown(node)));
    return;
  }
  parse_value(node[0], rule, report, std::get<0>(out));
  parse_value(node[1], rule, report, std::get<1>(out));
}

// --- formatting ---------------------------------------------------------------------------------

std::optional<std::string> format_value(bool value) { return value ? "true" : "false"; }
std::optional<std::string> format_value(int value) { return fmt::format("{}", value); }
std::optional<std::string> format_value(std::int64_t value) { return fmt::format("{}", value); }
std::optional<std::string> format_value(double value) { return fmt::format("{}", value); }

std::optional<std::string> format_value(const std::string& value) {
  constexpr std::string_view kSafe =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-";
  const bool safe =
      !value.empty() && value.find_first_not_of(kSafe) == std::string::npos && value.front() != '-';
  double real = 0.0;
  const bool ambiguous = read_number(value, real) != Syntax::kInvalid || value == "null" ||
                         value == "Null" || value == "NULL" || value == "true" || value == "false";
  if (safe && !ambiguous) return value;
  YAML::Emitter emitter;
  emitter << YAML::DoubleQuoted << value;
  return std::string(emitter.c_str());
}

std::optional<std::string> format_value(const std::vector<std::string>& value) {
  if (value.empty()) return std::nullopt;
  return flow_list(value);
}

std::optional<std::string> format_value(const std::vector<std::int64_t>& value) {
  return flow_list(value);
}

std::optional<std::string> format_value(LengthRange value) {
  return fmt::format("[{}, {}]", value.min, value.max);
}

std::optional<std::string> format_value(const ValidationConfig& value) {
  return value.fraction > 0.0 ? format_value(value.fraction) : format_value(value.files);
}

std::optional<std::string> format_value(std::tuple<const double&, const double&> value) {
  return fmt::format("[{}, {}]", std::get<0>(value), std::get<1>(value));
}

}  // namespace carousel
