#include "core/tensor/safetensors.h"

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/tensor/convert.h"
#include "core/tensor/safetensors_format.h"

namespace carousel {
namespace {

static_assert(std::endian::native == std::endian::little,
              "safetensors is little-endian and is read and written as it lies in memory");

// Staging memory for devices that cannot be written to, or read from, directly.
constexpr std::int64_t kStagingBytes = std::int64_t{4} << 20;

// Calls f(begin, count) for pieces of t's elements that fit into the staging memory.
template <class F>
void for_each_piece(const Tensor& t, F&& f) {
  const std::int64_t piece = kStagingBytes / static_cast<std::int64_t>(size_of(t.dtype()));
  for (std::int64_t begin = 0; begin < t.numel(); begin += piece) {
    f(begin, std::min(piece, t.numel() - begin));
  }
}

std::string header_text(const std::vector<const NamedTensor*>& order,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::unordered_set<std::string_view> seen;
  std::uint64_t offset = 0;
  for (const NamedTensor* t : order) {
    CAROUSEL_CHECK(t->tensor.defined(), "tensor '{}' is undefined", t->name);
    CAROUSEL_CHECK(is_tensor_name(t->name), "'{}' cannot name a tensor", t->name);
    CAROUSEL_CHECK(seen.insert(t->name).second, "two tensors are named '{}'", t->name);
    header[t->name] = {{"dtype", safetensors_name_of(t->tensor.dtype())},
                       {"shape", t->tensor.shape().dims()},
                       {"data_offsets", {offset, offset + t->tensor.bytes()}}};
    offset += t->tensor.bytes();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the data are aligned in the file, too
  return text;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : file_(path, ExitCode::kCheckpoint) {
  SafetensorsHeader header = parse_safetensors_header(path, file_.bytes());
  metadata_ = std::move(header.metadata);
  for (auto& [name, info] : header.tensors) {
    names_.push_back(name);
    index_.emplace(std::move(name), info);
  }
}

const TensorInfo& SafetensorsFile::info(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  if (found == index_.end()) {
    throw CheckpointError("'{}' has no tensor '{}' among its {}", path().string(), name,
                          names_.size());
  }
  return found->second;
}

Tensor SafetensorsFile::load(std::string_view name, Device device) const {
  return load_as(name, info(name).dtype, device);
}

Tensor SafetensorsFile::load_as(std::string_view name, DType dtype, Device device) const {
  Tensor t = Tensor::empty(info(name).shape, dtype, device);
  read_into(name, t);
  return t;
}

void SafetensorsFile::read_into(std::string_view name, Tensor& to) const {
  const TensorInfo& from = info(name);
  if (from.shape != to.shape()) {
    throw CheckpointError("'{}': tensor '{}' has shape {}, expected {}", path().string(), name,
                          from.shape, to.shape());
  }
  if (from.dtype != to.dtype() && !(is_floating(from.dtype) && is_floating(to.dtype()))) {
    throw CheckpointError("'{}': tensor '{}' is {} and cannot be read as {}", path().string(), name,
                          name_of(from.dtype), name_of(to.dtype()));
  }
  const std::byte* source = file_.bytes().data() + from.offset;
  if (to.device().type == DeviceType::kCpu) {
    convert_elements(from.dtype, source, to.dtype(), static_cast<std::byte*>(to.raw()), to.numel());
    to.bump_version();
  } else if (from.dtype == to.dtype()) {
    to.copy_from_host(source);
  } else {
    std::vector<std::byte> staging(
        static_cast<std::size_t>(std::min(kStagingBytes, static_cast<std::int64_t>(to.bytes()))));
    for_each_piece(to, [&](std::int64_t begin, std::int64_t count) {
      convert_elements(from.dtype, source + static_cast<std::size_t>(begin) * size_of(from.dtype),
                       to.dtype(), staging.data(), count);
      to.range(begin, Shape{count}).copy_from_host(staging.data());
    });
  }
}

void write_safetensors(OutputFile& file, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& t : tensors) order.push_back(&t);
  std::ranges::stable_sort(order, std::greater{},
                           [](const NamedTensor* t) { return size_of(t->tensor.dtype()); });
  const std::string header = [&] {
    try {
      return header_text(order, metadata);
    } catch (const nlohmann::json::type_error& e) {
      throw CheckpointError("cannot write '{}': names and metadata must be UTF-8 ({})",
                            file.path().string(), e.what());
    }
  }();
  const std::uint64_t length = header.size();
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);

  std::vector<std::byte> staging;
  for (const NamedTensor* named : order) {
    const Tensor& t = named->tensor;
    if (t.device().type == DeviceType::kCpu) {
      file.write(std::span(static_cast<const std::byte*>(t.raw()), t.bytes()));
      continue;
    }
    staging.resize(static_cast<std::size_t>(kStagingBytes));
    for_each_piece(t, [&](std::int64_t begin, std::int64_t count) {
      const Tensor piece = t.range(begin, Shape{count});
      piece.copy_to_host(staging.data());
      file.write(std::span(staging).first(piece.bytes()));
    });
  }
}

void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  replace_file(path, [&](OutputFile& file) { write_safetensors(file, tensors, metadata); });
}

}  // namespace carousel
