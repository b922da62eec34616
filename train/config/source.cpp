#include "train/config/source.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <tuple>

#include "core/base/error.h"
#include "train/config/schema.h"
#include "train/config/suggest.h"
#include "train/config/yaml_document.h"

namespace carousel {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{1} << 20;

/// Names directly in `section`.
std::vector<std::string> names_in(std::string_view section, const Names& names) {
  std::vector<std::string> found;
  for (const auto* set : {&names.keys, &names.sections}) {
    for (const std::string& name : *set) {
      if (section_of(name) == section) found.emplace_back(leaf_of(name));
    }
  }
  return found;
}

/// What to write in place of the unknown key `name` of `section`.
std::string advice(const std::string& name, std::string_view section, const Names& names) {
  const bool exists = section.empty() || names.sections.find(section) != names.sections.end();
  const std::vector<std::string> siblings = names_in(exists ? section : "", names);
  if (const auto near = closest(name, siblings)) return fmt::format("did you mean '{}'?", *near);
  for (const std::string& key : names.keys) {
    if (leaf_of(key) != leaf_of(name)) continue;
    const std::string_view home = section_of(key);
    return home.empty() ? fmt::format("'{}' stands at the top level", key)
                        : fmt::format("'{}' stands in {}", leaf_of(key), home);
  }
  return fmt::format("known are {}", fmt::join(siblings, ", "));
}

/// Keys and values may hold anything; an error stays one line and leaves the terminal alone.
std::string printable(std::string text) {
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  std::replace_if(text.begin(), text.end(), is_control, '?');
  return text;
}

std::string place(std::string_view section) {
  return section.empty() ? "at the top level" : fmt::format("in {}", section);
}

class FileReader {
 public:
  FileReader(const std::string& path, const Names& names, Problems& problems)
      : path_(path), names_(names), problems_(problems) {}

  FileSettings read(const std::string& text) {
    try {
      const YAML::Node document = parse_document(text);
      if (document.IsMap()) {
        read_section(document, "");
      } else if (!document.IsNull()) {
        report(document.Mark(), "expected keys and values, 'key: value'");
        file_.is_mapping = false;
      }
    } catch (const YAML::Exception& e) {
      report(e.mark, "not valid YAML: " + e.msg);
      file_.is_mapping = false;
    }
    return file_;
  }

 private:
  void report(const YAML::Mark& mark, const std::string& text) {
    problems_.add(path_, mark.line, mark.column, text);
  }

  void read_section(const YAML::Node& map, const std::string& section) {
    std::map<std::string, int> lines;
    for (const auto& entry : map) {
      const YAML::Node& key = entry.first;
      if (!key.IsScalar()) {
        report(key.Mark().is_null() ? map.Mark() : key.Mark(),
               fmt::format("expected the name of a key {}", place(section)));
        continue;
      }
      const std::string name = key.Scalar();
      const auto [earlier, is_new] = lines.try_emplace(name, key.Mark().line);
      if (!is_new) {
        report(key.Mark(), fmt::format("duplicate key '{}' {}; it stands in line {} already", name,
                                       place(section), earlier->second + 1));
        continue;
      }
      read_key(key, entry.second, section);
    }
  }

  void read_key(const YAML::Node& key, const YAML::Node& value, const std::string& section) {
    const std::string& name = key.Scalar();
    const std::string full = section.empty() ? name : section + "." + name;
    const bool dotted = name.find('.') != std::string::npos;
    if (!dotted && names_.keys.contains(full)) {
      file_.settings.push_back({full, value, path_, true, key.Mark().line, key.Mark().column});
    } else if (!dotted && names_.sections.contains(full)) {
      file_.sections[full] = {key.Mark().line, key.Mark().column};
      if (value.IsMap()) {
        read_section(value, full);
      } else if (!value.IsNull()) {
        report(value.Mark(), fmt::format("'{}' is a section; expected keys and values below it, {}",
                                         full, fmt::join(names_in(full, names_), ", ")));
      }
    } else if (name == "<<") {
      report(key.Mark(), "merge keys ('<<') are not supported; write the keys out");
    } else {
      report(key.Mark(), fmt::format("unknown key '{}' {}; {}", name, place(section),
                                     advice(name, section, names_)));
    }
  }

  const std::string& path_;
  const Names& names_;
  Problems& problems_;
  FileSettings file_;
};

}  // namespace

// --- problems -----------------------------------------------------------------------------------

void Problems::add(const std::string& source, int line, int column, const std::string& text) {
  problems_.push_back({printable(source), line, column, printable(text)});
}

void Problems::throw_if_any() const {
  if (problems_.empty()) return;
  // Sources stay in the order in which they were read.
  std::vector<std::string> sources;
  for (const Problem& p : problems_) sources.push_back(p.source);
  const auto rank = [&](const Problem& p) {
    return std::tuple(std::find(sources.begin(), sources.end(), p.source), p.line, p.column);
  };
  std::vector<Problem> sorted = problems_;
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](const Problem& a, const Problem& b) { return rank(a) < rank(b); });
  constexpr std::size_t kMostShown = 50;
  std::vector<std::string> lines;
  for (const Problem& p : sorted) {
    if (lines.size() == kMostShown) {
      lines.push_back(fmt::format("… and {} more", sorted.size() - kMostShown));
      break;
    }
    lines.push_back(p.line < 0
                        ? fmt::format("{}: {}", p.source, p.text)
                        : fmt::format("{}:{}:{}: {}", p.source, p.line + 1, p.column + 1, p.text));
  }
  throw UsageError("{}", fmt::join(lines, "\n"));
}

std::string Setting::origin() const {
  return in_file ? fmt::format("{}:{}", source, line + 1) : source;
}

// --- reading ------------------------------------------------------------------------------------

std::string read_config_file(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    throw UsageError("{}: cannot open the configuration: {}", path, std::strerror(ENOENT));
  }
  if (std::filesystem::is_directory(status)) {
    throw UsageError("{}: is a directory; name a YAML file", path);
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxBytes + 1, '\0');
  if (!file) throw UsageError("{}: cannot open the configuration: {}", path, std::strerror(errno));
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (file.bad()) throw UsageError("{}: cannot read the configuration", path);
  if (text.size() > kMaxBytes) {
    throw UsageError("{}: larger than {} bytes; this is no configuration", path, kMaxBytes);
  }
  return text;
}

FileSettings read_settings(const std::string& path, const std::string& text, const Names& names,
                           Problems& problems) {
  return FileReader(path, names, problems).read(text);
}

std::vector<Setting> read_overrides(const std::vector<std::string>& overrides, const Names& names,
                                    Problems& problems) {
  std::vector<Setting> settings;
  for (const std::string& text : overrides) {
    const std::string source = fmt::format("override '{}'", text);
    const std::size_t equals = text.find('=');
    const std::string key = text.substr(0, equals);
    if (equals == std::string::npos || key.empty()) {
      problems.add(source, -1, -1, "expected key=value, for instance optim.lr=3e-4");
    } else if (names.sections.contains(key)) {
      problems.add(source, -1, -1,
                   fmt::format("'{}' is a section; override its keys one by one, {}.{}=…", key, key,
                               names_in(key, names).front()));
    } else if (!names.keys.contains(key)) {
      const std::vector<std::string> all(names.keys.begin(), names.keys.end());
      const auto near = closest(key, all);
      problems.add(source, -1, -1,
                   fmt::format("unknown key '{}'; {}", key,
                               near ? fmt::format("did you mean '{}'?", *near)
                                    : advice(std::string(leaf_of(key)), section_of(key), names)));
    } else if (text.find_first_not_of(" \t", equals + 1) == std::string::npos) {
      problems.add(source, -1, -1, "the value is missing; null would unset the key");
    } else {
      try {
        settings.push_back({key, parse_document(text.substr(equals + 1)), source});
      } catch (const YAML::Exception& e) {
        problems.add(source, -1, -1, "the value is not valid YAML: " + e.msg);
      }
    }
  }
  return settings;
}

}  // namespace carousel
