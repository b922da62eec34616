// The safetensors format: an 8-byte little-endian header length, a JSON header that gives every
// tensor's dtype, shape and byte range, then the bytes. Source: the format's description at
// https://github.com/huggingface/safetensors. Files are untrusted: every field is checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/base/file.h"
#include "core/tensor/tensor.h"

namespace carousel {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// A tensor that is made when its turn to be written comes, and freed after that.
struct TensorSource {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::function<Tensor()> make;  ///< of this dtype and shape, on any device
};

/// Where a tensor lies in its file.
struct TensorInfo {
  DType dtype = DType::kF32;
  Shape shape;
  std::uint64_t offset = 0;  ///< first byte, from the beginning of the file
  std::uint64_t bytes = 0;
};

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  std::vector<std::pair<std::string, TensorInfo>> tensors;  ///< in the header's order
};

/// Parses and checks the header of a whole file in memory; `path` is for messages alone. Refused,
/// with a CheckpointError that lists all problems (the first one where the JSON itself is broken):
/// a header length beyond the file or over 100 MB; unknown, missing, repeated or wrongly typed
/// fields; repeated or unprintable names; unknown dtypes; ranks over Shape::kMaxRank; byte ranges
/// that are reversed, out of bounds, misaligned or not of the size that shape and dtype give;
/// overlaps, holes and trailing bytes.
SafetensorsHeader parse_safetensors_header(const std::filesystem::path& path,
                                           std::span<const std::byte> file);

/// An open file. Reads are thread-safe and deterministic; they touch the file's pages and the
/// destination, nothing in between.
class SafetensorsFile {
 public:
  /// Maps the file and checks its header. Throws CheckpointError.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// All names in the header's order.
  const std::vector<std::string>& names() const { return names_; }
  bool contains(std::string_view name) const { return index_.contains(std::string(name)); }
  /// These throw CheckpointError if there is no such tensor.
  const TensorInfo& info(std::string_view name) const;
  /// A new tensor with the file's dtype.
  Tensor load(std::string_view name, Device device = kCpu) const;
  /// A new tensor; floating dtypes convert into each other as convert_elements() does. Throws
  /// CheckpointError for other conversions.
  Tensor load_as(std::string_view name, DType dtype, Device device = kCpu) const;
  /// Overwrites `to`, converting as load_as() does. Throws CheckpointError if the shapes differ.
  void read_into(std::string_view name, Tensor& to) const;
  /// The same from row `row` of the tensor's first dimension on: `to` takes as many rows as it has.
  /// Throws CheckpointError if these rows do not exist or have another shape.
  void read_rows_into(std::string_view name, std::int64_t row, Tensor& to) const;
  /// The same from element `begin` of the flattened tensor on: `to` takes as many as it has. Throws
  /// CheckpointError if these elements do not exist.
  void read_range_into(std::string_view name, std::int64_t begin, Tensor to) const;

 private:
  void read_elements(std::string_view name, std::int64_t begin, Tensor& to) const;

  MappedFile file_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, TensorInfo> index_;
};

/// Writes the tensors (any device, distinct printable names) to an open file, in the given order
/// but larger element types first, so that all are aligned. Constant extra memory beside the header
/// and, for sources, the tensor that is being written. Throws CheckpointError if the writing fails
/// or the metadata are not UTF-8, and what a source throws.
void stream_safetensors(OutputFile& file, const std::vector<TensorSource>& tensors,
                        const std::map<std::string, std::string>& metadata);
void write_safetensors(OutputFile& file, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata);
/// The same to `path`, by replace_file(): the path holds what it held before or all of the new
/// file.
void stream_safetensors(const std::filesystem::path& path, const std::vector<TensorSource>& tensors,
                        const std::map<std::string, std::string>& metadata);
void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace carousel
