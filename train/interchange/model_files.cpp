#include "train/interchange/model_files.h"

#include <nlohmann/json.hpp>
#include <set>

#include "core/base/file.h"

namespace carousel {
namespace fs = std::filesystem;
namespace {

// tensor → file, as the index says.
std::map<std::string, std::string> read_index(const fs::path& path) {
  const MappedFile file(path, ExitCode::kCheckpoint);
  std::map<std::string, std::string> map;
  try {
    const auto index = nlohmann::json::parse(file.text());
    for (const auto& [tensor, shard] : index.at("weight_map").items()) {
      map[tensor] = shard.get<std::string>();
    }
  } catch (const nlohmann::json::exception& e) {
    throw CheckpointError("'{}' is broken: {}", path.string(),
                          std::string(e.what()).substr(0, 300));
  }
  if (map.empty()) throw CheckpointError("'{}' names no tensors", path.string());
  return map;
}

// The distinct shards; adds to `problems` those that cannot be.
std::set<std::string> shards_of(const std::map<std::string, std::string>& map,
                                const fs::path& directory, std::string& problems) {
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : map) shards.insert(shard);
  for (const std::string& shard : shards) {
    std::error_code error;
    if (shard.empty() || fs::path(shard).filename() != shard || shard.starts_with('.')) {
      problems += fmt::format("\n  '{}' is not a plain file name", shard);
    } else if (!fs::is_regular_file(directory / shard, error)) {
      problems += fmt::format("\n  shard '{}' is absent", shard);
    }
  }
  return shards;
}

}  // namespace

ModelFiles ModelFiles::open(const fs::path& directory) {
  ModelFiles files(directory);
  std::error_code error;
  if (fs::exists(directory / kSingleFile, error)) {
    files.open_single();
  } else if (fs::exists(directory / kIndexFile, error)) {
    files.open_shards();
  } else {
    throw CheckpointError(
        "'{}' holds neither {} nor {}; give a model directory with weights in safetensors",
        directory.string(), kSingleFile, kIndexFile);
  }
  return files;
}

void ModelFiles::open_single() {
  files_.emplace_back(directory_ / kSingleFile);
  for (const std::string& name : files_.back().names()) file_of_[name] = 0;
}

void ModelFiles::open_shards() {
  const fs::path index = directory_ / kIndexFile;
  const auto map = read_index(index);
  std::string problems;
  const std::set<std::string> shards = shards_of(map, directory_, problems);
  const auto throw_problems = [&] {
    if (problems.empty()) return;
    throw CheckpointError("'{}' does not match the files beside it; download all of them again:{}",
                          index.string(), problems);
  };
  throw_problems();
  std::map<std::string, std::size_t> number;
  for (const std::string& shard : shards) {
    number[shard] = files_.size();
    files_.emplace_back(directory_ / shard);
    for (const std::string& name : files_.back().names()) {
      const auto named = map.find(name);
      if (named == map.end() || named->second != shard) {
        problems +=
            fmt::format("\n  '{}' holds tensor '{}', which the index {}", shard, name,
                        named == map.end() ? "does not name" : "places in '" + named->second + "'");
      }
    }
  }
  for (const auto& [tensor, shard] : map) {
    file_of_[tensor] = number.at(shard);
    if (!files_[number.at(shard)].contains(tensor)) {
      problems += fmt::format("\n  tensor '{}' is not in '{}'", tensor, shard);
    }
  }
  throw_problems();
}

std::vector<std::string> ModelFiles::names() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : file_of_) names.push_back(name);
  return names;
}

const SafetensorsFile& ModelFiles::file_of(const std::string& name) const {
  const auto found = file_of_.find(name);
  if (found == file_of_.end()) {
    throw CheckpointError("'{}' has no tensor '{}'", directory_.string(), name);
  }
  return files_[found->second];
}

}  // namespace carousel
