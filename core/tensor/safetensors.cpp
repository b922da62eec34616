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

std::string header_text(const std::vector<const TensorSource*>& order,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::unordered_set<std::string_view> seen;
  std::uint64_t offset = 0;
  for (const TensorSource* t : order) {
    CAROUSEL_CHECK(is_tensor_name(t->name), "'{}' cannot name a tensor", t->name);
    CAROUSEL_CHECK(seen.insert(t->name).second, "two tensors are named '{}'", t->name);
    const std::uint64_t end =
        offset + static_cast<std::uint64_t>(t->shape.numel()) * size_of(t->dtype);
    header[t->name] = {{"dtype", safetensors_name_of(t->dtype)},
                       {"shape", t->shape.dims()},
                       {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the data are aligned in the file, too
  return text;
}

void write_data(OutputFile& file, const Tensor& t, std::vector<std::byte>& staging) {
  if (t.device().type == DeviceType::kCpu) {
    file.write(std::span(static_cast<const std::byte*>(t.raw()), t.bytes()));
    return;
  }
  staging.resize(static_cast<std::size_t>(kStagingBytes));
  for_each_piece(t, [&](std::int64_t begin, std::int64_t count) {
    const Tensor piece = t.range(begin, Shape{count});
    piece.copy_to_host(staging.data());
    file.write(std::span(staging).first(piece.bytes()));
  });
}

// Rows of a tensor; nothing for a scalar.
std::span<const std::int64_t> row_dims(const Shape& shape) {
  const auto dims = shape.dims();
  return dims.empty() ? dims : dims.subspan(1);
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
  read_elements(name, 0, to);
}

void SafetensorsFile::read_rows_into(std::string_view name, std::int64_t row, Tensor& to) const {
  const TensorInfo& from = info(name);
  const bool ranked = from.shape.rank() > 0 && to.rank() > 0;
  if (!ranked || !std::ranges::equal(row_dims(from.shape), row_dims(to.shape())) || row < 0 ||
      row > from.shape[0] || to.dim(0) > from.shape[0] - row) {
    throw CheckpointError("'{}': tensor '{}' {} has no rows {} at {}", path().string(), name,
                          from.shape, to.shape(), row);
  }
  read_elements(name, from.shape[0] > 0 ? row * (from.shape.numel() / from.shape[0]) : 0, to);
}

void SafetensorsFile::read_range_into(std::string_view name, std::int64_t begin, Tensor to) const {
  const std::int64_t held = info(name).shape.numel();
  if (begin < 0 || begin > held || to.numel() > held - begin) {
    throw CheckpointError("'{}': tensor '{}' of {} elements has no {} at {}", path().string(), name,
                          held, to.numel(), begin);
  }
  read_elements(name, begin, to);
}

void SafetensorsFile::read_elements(std::string_view name, std::int64_t begin, Tensor& to) const {
  const TensorInfo& from = info(name);
  if (from.dtype != to.dtype() && !(is_floating(from.dtype) && is_floating(to.dtype()))) {
    throw CheckpointError("'{}': tensor '{}' is {} and cannot be read as {}", path().string(), name,
                          name_of(from.dtype), name_of(to.dtype()));
  }
  const std::size_t offset = from.offset + static_cast<std::size_t>(begin) * size_of(from.dtype);
  const std::byte* source = file_.bytes().data() + offset;
  if (to.device().type == DeviceType::kCpu) {
    convert_elements(from.dtype, source, to.dtype(), static_cast<std::byte*>(to.raw()), to.numel());
    to.bump_version();
  } else if (from.dtype == to.dtype()) {
    to.copy_from_host(source);
  } else {
    std::vector<std::byte> staging(
        static_cast<std::size_t>(std::min(kStagingBytes, static_cast<std::int64_t>(to.bytes()))));
    for_each_piece(to, [&](std::int64_t at, std::int64_t count) {
      convert_elements(from.dtype, source + static_cast<std::size_t>(at) * size_of(from.dtype),
                       to.dtype(), staging.data(), count);
      to.range(at, Shape{count}).copy_from_host(staging.data());
    });
  }
  file_.forget(offset, static_cast<std::size_t>(to.numel()) * size_of(from.dtype));
}

void stream_safetensors(OutputFile& file, const std::vector<TensorSource>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  std::vector<const TensorSource*> order;
  for (const TensorSource& t : tensors) order.push_back(&t);
  std::ranges::stable_sort(order, std::greater{},
                           [](const TensorSource* t) { return size_of(t->dtype); });
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
  for (const TensorSource* source : order) {
    const Tensor t = source->make();
    CAROUSEL_CHECK(t.dtype() == source->dtype && t.shape() == source->shape,
                   "'{}' was made as {} {}, announced as {} {}", source->name, name_of(t.dtype()),
                   t.shape(), name_of(source->dtype), source->shape);
    write_data(file, t, staging);
  }
}

void write_safetensors(OutputFile& file, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<TensorSource> sources;
  for (const NamedTensor& t : tensors) {
    CAROUSEL_CHECK(t.tensor.defined(), "tensor '{}' is undefined", t.name);
    sources.push_back({t.name, t.tensor.dtype(), t.tensor.shape(), [&t] { return t.tensor; }});
  }
  stream_safetensors(file, sources, metadata);
}

void stream_safetensors(const std::filesystem::path& path, const std::vector<TensorSource>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  replace_file(path, [&](OutputFile& file) { stream_safetensors(file, tensors, metadata); });
}

void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  replace_file(path, [&](OutputFile& file) { write_safetensors(file, tensors, metadata); });
}

}  // namespace carousel
