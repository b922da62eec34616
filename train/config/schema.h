// The one table of all keys: it serves parsing, defaults, overrides, help, `--explain` and writing.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/config/value.h"

namespace carousel {

/// A key: what it means, what it accepts, and the member of Config that it sets. Its default is
/// that member's initial value.
struct Field {
  std::string key;  ///< "optim.weight_decay"
  std::string doc;  ///< one line
  std::string type;
  Rule rule;
  bool required = false;
  bool may_change = false;            ///< between a run and its resumption
  std::string absent;                 ///< what leaving the key out means, where that is no value
  std::optional<ModelFamily> family;  ///< the key exists for this family alone
  bool for_files = false;             ///< the key has no meaning with data.task

  std::function<void(const YAML::Node&, const Rule&, const Report&, Config&)> parse;
  /// The value as YAML; nothing where it is unset.
  std::function<std::optional<std::string>(const Config&)> format;

  bool belongs_to(ModelFamily f) const { return !family || *family == f; }
  /// Whether the key has a meaning in this configuration.
  bool applies_to(const Config& config) const {
    return belongs_to(config.model.family) && !(for_files && config.data.task);
  }
  /// "a number, above 0, steps": type, unit and allowed values in words.
  std::string accepts() const;
};

/// All keys, each section's together. A key that both families have stands here twice.
const std::vector<Field>& schema();

/// "optim" of "optim.lr"; empty at the top level.
std::string_view section_of(std::string_view key);
/// "lr" of "optim.lr".
std::string_view leaf_of(std::string_view key);

/// A rule about several keys together.
struct CrossCheck {
  std::vector<std::string> keys;  ///< the error stands at the first of them that was given
  /// The error's text, empty if the configuration is fine. `given` tells whether the file or an
  /// override set a key.
  std::function<std::string(const Config&, const std::function<bool(std::string_view)>& given)>
      problem;
};
const std::vector<CrossCheck>& cross_checks();

}  // namespace carousel
