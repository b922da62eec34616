#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/base/error.h"
#include "train/config/schema.h"
#include "train/config/source.h"

namespace carousel {
namespace {

Names all_names() {
  Names names;
  for (const Field& field : schema()) {
    names.keys.insert(field.key);
    for (auto section = section_of(field.key); !section.empty(); section = section_of(section)) {
      names.sections.emplace(section);
    }
  }
  return names;
}

using Settings = std::map<std::string, Setting, std::less<>>;

/// Fills a Config from settings, one per key.
class Loader {
 public:
  Loader(const std::string& path, const FileSettings& file, const Settings& settings,
         Problems& problems)
      : path_(path), file_(file), settings_(settings), problems_(problems) {}

  LoadedConfig load() {
    const Field& family = field("model.family");
    set(family);
    for (const Field& f : schema()) {
      // Without a family it is unknown which of the model's keys exist; one error is enough.
      if (f.key == family.key || (f.family && failed(family.key))) continue;
      if (f.belongs_to(config_.model.family)) set(f);
    }
    if (!failed(family.key)) refuse_keys_without_meaning();
    derive();
    check_together();
    return {std::move(config_), std::move(origins_)};
  }

 private:
  static const Field& field(std::string_view key) {
    return *std::find_if(schema().begin(), schema().end(),
                         [&](const Field& f) { return f.key == key; });
  }

  bool given(std::string_view key) const { return settings_.find(key) != settings_.end(); }
  bool failed(std::string_view key) const { return failed_.find(key) != failed_.end(); }

  void report(std::string_view key, const std::string& text) {
    const auto found = settings_.find(key);
    if (found == settings_.end()) {
      problems_.add(path_, -1, -1, text);
    } else {
      problems_.add(found->second.source, found->second.line, found->second.column, text);
    }
  }

  void report_missing(const Field& f) {
    failed_.emplace(f.key);
    const std::string_view section = section_of(f.key);
    const auto start = file_.sections.find(section);
    const auto [line, column] = start == file_.sections.end() ? std::pair(-1, -1) : start->second;
    problems_.add(
        path_, line, column,
        fmt::format("missing key '{}'{}: {} ({})", leaf_of(f.key),
                    section.empty() ? "" : fmt::format(" in {}", section), f.doc, f.accepts()));
  }

  void set(const Field& f) {
    const auto found = settings_.find(f.key);
    if (found == settings_.end()) {
      origins_[f.key] = "default";
      if (!f.required) return;
      report_missing(f);
      return;
    }
    const Setting& setting = found->second;
    origins_[f.key] = setting.origin();
    const Report sink = [&](const YAML::Mark& mark, const std::string& text) {
      // The mark of a missing value is that of the next key.
      const bool placed = setting.in_file && !is_null(setting.value);
      problems_.add(setting.source, placed ? mark.line : setting.line,
                    placed ? mark.column : setting.column, fmt::format("{}: {}", f.key, text));
      failed_.emplace(f.key);
    };
    f.parse(setting.value, f.rule, sink, config_);
  }

  void refuse_keys_without_meaning() {
    for (const auto& [key, setting] : settings_) {
      const auto has_key = [&key = key](const Field& f) { return f.key == key; };
      const auto applies = [&](const Field& f) { return has_key(f) && f.applies_to(config_); };
      if (std::any_of(schema().begin(), schema().end(), applies)) continue;
      const bool files = std::find_if(schema().begin(), schema().end(), has_key)->for_files;
      report(key,
             files ? fmt::format("{} has no meaning with data.task, which makes its own data", key)
                   : fmt::format("{} does not belong to model.family {}", key,
                                 *format_value(config_.model.family)));
    }
  }

  /// Defaults that depend on other keys.
  void derive() {
    if (!given("output_dir")) {
      config_.output_dir = "runs/" + config_.name;
      origins_["output_dir"] = "from name";
    }
    const auto& task = config_.data.task;
    if (task) config_.data.seq_len = task->train_lengths.max;
    if (config_.model.family == ModelFamily::kXlstm && !given("model.context_length")) {
      config_.model.xlstm.context_length =
          std::max(config_.data.seq_len, task ? task->val_lengths.max : 0);
      origins_["model.context_length"] = task ? "from data.task" : "from data.seq_len";
    }
  }

  void check_together() {
    for (const CrossCheck& check : cross_checks()) {
      // A key that is wrong by itself would only cause follow-up errors.
      const auto& keys = check.keys;
      if (std::any_of(keys.begin(), keys.end(), [&](const auto& k) { return failed(k); })) continue;
      const std::string problem =
          check.problem(config_, [&](std::string_view key) { return given(key); });
      if (problem.empty()) continue;
      const auto first =
          std::find_if(keys.begin(), keys.end(), [&](const auto& k) { return given(k); });
      report(first == keys.end() ? keys.front() : *first, problem);
    }
  }

  const std::string& path_;
  const FileSettings& file_;
  const Settings& settings_;  ///< the file's and the overrides'
  Problems& problems_;
  std::set<std::string, std::less<>> failed_;
  std::map<std::string, std::string> origins_;
  Config config_;
};

LoadedConfig load(const std::string& path, const std::string& text,
                  const std::vector<std::string>& overrides) {
  const Names names = all_names();
  Problems problems;
  Settings settings;
  const FileSettings file = read_settings(path, text, names, problems);
  for (const Setting& s : file.settings) settings.insert_or_assign(s.key, s);
  for (const Setting& s : read_overrides(overrides, names, problems)) {
    settings.erase(s.key);
    if (!is_null(s.value)) settings.emplace(s.key, s);
  }
  if (!file.is_mapping) problems.throw_if_any();  // every key would be missing
  LoadedConfig loaded = Loader(path, file, settings, problems).load();
  problems.throw_if_any();
  return loaded;
}

}  // namespace

LoadedConfig load_config_with_origins(const std::string& path,
                                      const std::vector<std::string>& overrides) {
  return load(path, read_config_file(path), overrides);
}

Config parse_config(const std::string& text, const std::string& path) {
  return load(path, text, {}).config;
}

Config load_config(const std::string& path, const std::vector<std::string>& overrides) {
  return load_config_with_origins(path, overrides).config;
}

}  // namespace carousel
