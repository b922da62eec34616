#include <fmt/format.h>

#include <algorithm>

#include "train/config/schema.h"

namespace carousel {
namespace {

/// Indentation and names of the sections of `key` that `previous` did not open.
std::string section_headers(std::string_view key, std::string_view previous) {
  std::string text;
  for (std::size_t dot = key.find('.'); dot != std::string_view::npos;
       dot = key.find('.', dot + 1)) {
    const std::string_view section = key.substr(0, dot);
    if (previous.starts_with(key.substr(0, dot + 1))) continue;
    const auto depth = static_cast<std::size_t>(std::count(section.begin(), section.end(), '.'));
    text += fmt::format("{:{}}{}:\n", "", 2 * depth, leaf_of(section));
  }
  return text;
}

std::string indented(std::string_view key, std::string_view value) {
  const auto depth = static_cast<std::size_t>(std::count(key.begin(), key.end(), '.'));
  return fmt::format("{:{}}{}: {}", "", 2 * depth, leaf_of(key), value);
}

/// Calls visit(field, value) for each key that has a value in this configuration.
template <class Visit>
void for_each_value(const Config& config, Visit&& visit) {
  for (const Field& field : schema()) {
    if (!field.applies_to(config)) continue;
    if (const auto value = field.format(config)) visit(field, *value);
  }
}

}  // namespace

std::string to_yaml(const Config& config) {
  std::string text;
  std::string previous;
  for_each_value(config, [&](const Field& field, const std::string& value) {
    text += section_headers(field.key, previous) + indented(field.key, value) + "\n";
    previous = field.key;
  });
  return text;
}

std::string key_values(const Config& config) {
  std::string text;
  for_each_value(config, [&](const Field& field, const std::string& value) {
    text += fmt::format("{}={}\n", field.key, value);
  });
  return text;
}

std::string explain(const LoadedConfig& loaded) {
  std::string text;
  std::string previous;
  for (const Field& field : schema()) {
    if (!field.applies_to(loaded.config)) continue;
    const auto value = field.format(loaded.config);
    // An unset key is shown too, as a comment that says what its absence means.
    std::string line = indented(field.key, value.value_or(field.absent));
    if (!value) line.insert(line.find_first_not_of(' '), "# ");
    text += section_headers(field.key, previous);
    text += fmt::format("{:<40}  # [{}] {} ({})\n", line, loaded.origins.at(field.key), field.doc,
                        field.accepts());
    previous = field.key;
  }
  return text;
}

std::string describe_keys() {
  const Config defaults;
  std::string text;
  for (const Field& field : schema()) {
    std::string initial = field.absent;
    if (field.required) {
      initial = "required";
    } else if (initial.empty()) {
      initial = field.format(defaults).value_or("none");
    }
    text += fmt::format("{}{}\n    {}\n    {}; default: {}\n", field.key,
                        field.family ? fmt::format("  [{}]", *format_value(*field.family)) : "",
                        field.doc, field.accepts(), initial);
  }
  return text;
}

std::map<std::string, std::string> fixed_values(const Config& config) {
  std::map<std::string, std::string> values;
  for_each_value(config, [&](const Field& field, const std::string& value) {
    if (!field.may_change) values.emplace(field.key, value);
  });
  return values;
}

}  // namespace carousel
