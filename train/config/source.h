// Where settings come from: a YAML file and overrides, reduced to a list of keys with their values
// and places. Nothing here knows what a key means.
#pragma once

#include <yaml-cpp/yaml.h>

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "train/config/value.h"

namespace carousel {

/// All errors of a configuration, collected so that they are reported at once.
class Problems {
 public:
  /// `line` and `column` count from 0; a negative line stands for the whole source.
  void add(const std::string& source, int line, int column, const std::string& text);
  bool empty() const { return problems_.empty(); }
  /// Throws UsageError with one problem a line, those of a source in the order of its lines.
  void throw_if_any() const;

 private:
  struct Problem {
    std::string source;
    int line, column;
    std::string text;
  };
  std::vector<Problem> problems_;
};

/// A key that the file or an override sets.
struct Setting {
  std::string key;  ///< full path, "optim.lr"
  YAML::Node value;
  std::string source;  ///< the file's path, or "override 'optim.lr=3e-4'"
  bool in_file = false;
  int line = -1, column = -1;  ///< of the key in the file, from 0

  /// "run.yaml:12" or "override 'optim.lr=3e-4'".
  std::string origin() const;
};

/// The names that may stand in a file, as full paths.
struct Names {
  std::set<std::string, std::less<>> keys;
  std::set<std::string, std::less<>> sections;  ///< without the top level
};

/// What a file says: its settings, and where each section starts.
struct FileSettings {
  bool is_mapping = true;  ///< false after a syntax error: nothing else could be read then
  std::vector<Setting> settings;
  std::map<std::string, std::pair<int, int>, std::less<>> sections;  ///< (line, column), from 0
};

/// The file's text. Throws UsageError if it cannot be read or is larger than 1 MiB.
std::string read_config_file(const std::string& path);

/// Reads the YAML text of the file `path`, which need not exist. Syntax errors, texts that are no
/// mapping, unknown and duplicate keys and misplaced sections go to `problems`; what could be read
/// is returned, in the file's order.
FileSettings read_settings(const std::string& path, const std::string& text, const Names& names,
                           Problems& problems);

/// Reads overrides `a.b=value`, the value in YAML: null unsets the key. Errors go to `problems`.
std::vector<Setting> read_overrides(const std::vector<std::string>& overrides, const Names& names,
                                    Problems& problems);

}  // namespace carousel
