// The tensors of a model directory: model.safetensors, or the shards that
// model.safetensors.index.json names.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor/safetensors.h"

namespace carousel {

class ModelFiles {
 public:
  static constexpr const char* kSingleFile = "model.safetensors";
  static constexpr const char* kIndexFile = "model.safetensors.index.json";

  /// Opens all files. Throws CheckpointError that lists everything wrong with an index: broken
  /// JSON, names that are paths, absent shards, tensors that are not in the shard which the index
  /// names, or in one that the index does not name for them.
  static ModelFiles open(const std::filesystem::path& directory);

  const std::filesystem::path& directory() const { return directory_; }
  /// Sorted.
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const { return file_of_.contains(name); }
  /// These throw CheckpointError if there is no such tensor.
  const TensorInfo& info(const std::string& name) const { return file_of(name).info(name); }
  /// The tensor in host memory, converted as SafetensorsFile::load_as() does.
  Tensor load_as(const std::string& name, DType dtype) const {
    return file_of(name).load_as(name, dtype);
  }
  /// Overwrites `to`, as SafetensorsFile::read_into() does.
  void read_into(const std::string& name, Tensor& to) const { file_of(name).read_into(name, to); }
  /// The same from row `row` on, as SafetensorsFile::read_rows_into() does.
  void read_rows_into(const std::string& name, std::int64_t row, Tensor& to) const {
    file_of(name).read_rows_into(name, row, to);
  }

 private:
  explicit ModelFiles(std::filesystem::path directory) : directory_(std::move(directory)) {}
  void open_single();
  void open_shards();
  const SafetensorsFile& file_of(const std::string& name) const;

  std::filesystem::path directory_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::size_t> file_of_;  // tensor → index into files_
};

}  // namespace carousel
