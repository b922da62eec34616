#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>

#include "core/tensor/safetensors.h"
#include "core/tensor/safetensors_format.h"

namespace carousel {
namespace {

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr std::size_t kMaxProblems = 20;

// Text from the file, made safe and short enough for a message.
std::string shown(std::string_view text) {
  constexpr std::size_t kLongest = 120;
  const std::string start(text.substr(0, kLongest));
  return nlohmann::json(start).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace) +
         (text.size() > kLongest ? "…" : "");
}

class Problems {
 public:
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    if (++count_ <= kMaxProblems) {
      text_ += "\n  " + fmt::format(format, std::forward<Args>(args)...);
    }
  }
  bool empty() const { return count_ == 0; }
  void throw_if_any(const std::string& path) const {
    if (count_ == 0) return;
    throw CheckpointError(
        "'{}' is not a sound safetensors file; copy or download it again:{}{}", path, text_,
        count_ > kMaxProblems ? fmt::format("\n  … and {} more", count_ - kMaxProblems) : "");
  }

 private:
  std::size_t count_ = 0;
  std::string text_;
};

// A tensor's entry as the header states it, before any check of the values.
struct Entry {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<std::uint64_t>> shape;
  std::optional<std::vector<std::uint64_t>> offsets;
};

// Receives the JSON's events and accepts only the grammar of a header, so that neither depth nor
// repeated keys can get past it; throws at the first event that has no place in the grammar.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(std::string path, Problems& problems)
      : path_(std::move(path)), problems_(problems) {}

  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;

  bool null() override { return refuse("null"); }
  bool boolean(bool value) override { return refuse(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { return refuse(fmt::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { return refuse(text); }
  bool binary(binary_t&) override { return refuse("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kShape && place_ != Place::kOffsets) return refuse(fmt::to_string(value));
    auto& numbers = *(place_ == Place::kShape ? entries.back().shape : entries.back().offsets);
    // Nothing needs more than this; the surplus is counted, not stored.
    if (numbers.size() <= Shape::kMaxRank) numbers.push_back(value);
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      metadata.emplace(key_, value);
    } else if (place_ == Place::kTensor && key_ == "dtype") {
      entries.back().dtype = value;
    } else {
      return refuse(shown(value));
    }
    return true;
  }

  bool key(string_t& name) override {
    key_ = name;
    if (place_ == Place::kRoot) {
      if (!tensor_names_.insert(name).second) problems_.add("{}: repeated", shown(name));
    } else if (place_ == Place::kMetadata) {
      if (metadata.contains(name)) problems_.add("__metadata__: {} repeated", shown(name));
    } else {
      const Entry& entry = entries.back();
      if ((name == "dtype" && entry.dtype) || (name == "shape" && entry.shape) ||
          (name == "data_offsets" && entry.offsets)) {
        problems_.add("{}: {} repeated", shown(entry.name), name);
      }
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kRoot;
    } else if (place_ == Place::kRoot && key_ == "__metadata__") {
      place_ = Place::kMetadata;
    } else if (place_ == Place::kRoot) {
      entries.emplace_back().name = key_;
      place_ = Place::kTensor;
    } else {
      return refuse("an object");
    }
    return true;
  }
  bool end_object() override {
    place_ = place_ == Place::kRoot ? Place::kEnd : Place::kRoot;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::kTensor && key_ == "shape") {
      entries.back().shape.emplace();
      place_ = Place::kShape;
    } else if (place_ == Place::kTensor && key_ == "data_offsets") {
      entries.back().offsets.emplace();
      place_ = Place::kOffsets;
    } else {
      return refuse("an array");
    }
    return true;
  }
  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception& error) override {
    constexpr std::size_t kLongest = 300;
    throw CheckpointError("'{}' is not a safetensors file: its header is broken at byte {}: {}",
                          path_, kLengthBytes + position,
                          std::string(error.what()).substr(0, kLongest));
  }

 private:
  enum class Place { kStart, kRoot, kMetadata, kTensor, kShape, kOffsets, kEnd };

  bool refuse(const std::string& value) const {
    std::string where = "the header";
    if (place_ == Place::kMetadata) {
      where = "__metadata__, " + shown(key_) + " (must be a string)";
    } else if (place_ == Place::kRoot) {
      where = shown(key_) + " (must be an object)";
    } else if (place_ == Place::kTensor) {
      where = shown(entries.back().name) + ", field " + shown(key_) +
              " (fields are dtype: a string, shape and data_offsets: arrays of integers)";
    } else if (place_ == Place::kShape || place_ == Place::kOffsets) {
      where = shown(entries.back().name) + ", " + key_ +
              " (must hold non-negative integers below 2^64)";
    }
    throw CheckpointError("'{}' is not a safetensors file: unexpected {} in {}", path_,
                          value.size() > 200 ? value.substr(0, 200) + "…" : value, where);
  }

  std::string path_;
  Problems& problems_;
  Place place_ = Place::kStart;
  std::string key_;
  std::unordered_set<std::string> tensor_names_;
};

// The shape, if it is one and `bytes` is its size; otherwise says what is wrong.
std::optional<Shape> check_shape(const Entry& entry, DType dtype, std::uint64_t bytes,
                                 Problems& problems) {
  const std::string name = shown(entry.name);
  if (entry.shape->size() > Shape::kMaxRank) {
    problems.add("{}: more than {} dimensions", name, Shape::kMaxRank);
    return std::nullopt;
  }
  // A product that overflows before it meets a zero is refused, as Shape does.
  std::int64_t want = static_cast<std::int64_t>(size_of(dtype));
  std::vector<std::int64_t> dims;
  for (const std::uint64_t d : *entry.shape) {
    if (d > INT64_MAX || __builtin_mul_overflow(want, static_cast<std::int64_t>(d), &want)) {
      problems.add("{}: the size of shape ({}) overflows", name, fmt::join(*entry.shape, ", "));
      return std::nullopt;
    }
    dims.push_back(static_cast<std::int64_t>(d));
  }
  if (static_cast<std::uint64_t>(want) != bytes) {
    problems.add("{}: {} of shape ({}) is {} bytes, but its data_offsets span {}", name,
                 name_of(dtype), fmt::join(*entry.shape, ", "), want, bytes);
    return std::nullopt;
  }
  return Shape(dims);
}

// Checks one entry alone. The offset is relative to the data until the caller moves it.
std::optional<TensorInfo> check_entry(const Entry& entry, std::uint64_t data_bytes,
                                      Problems& problems) {
  const std::string name = shown(entry.name);
  if (!is_tensor_name(entry.name)) {
    problems.add("{}: a name must not be empty or hold control characters", name);
  }
  if (!entry.dtype || !entry.shape || !entry.offsets) {
    problems.add("{}: no {}", name,
                 !entry.dtype ? "dtype" : (!entry.shape ? "shape" : "data_offsets"));
    return std::nullopt;
  }
  const auto dtype = dtype_from_safetensors(*entry.dtype);
  if (!dtype) problems.add("{}: unsupported dtype {}", name, shown(*entry.dtype));
  if (entry.offsets->size() != 2) {
    problems.add("{}: data_offsets must be [begin, end]", name);
    return std::nullopt;
  }
  const std::uint64_t begin = entry.offsets->front();
  const std::uint64_t end = entry.offsets->back();
  if (begin > end || end > data_bytes) {
    problems.add("{}: data_offsets [{}, {}] do not lie in order within the {} bytes of data", name,
                 begin, end, data_bytes);
    return std::nullopt;
  }
  if (!dtype) return std::nullopt;
  const auto shape = check_shape(entry, *dtype, end - begin, problems);
  if (!shape) return std::nullopt;
  if (begin % size_of(*dtype) != 0) {
    problems.add("{}: misaligned, {} cannot begin at byte {} of the data", name, name_of(*dtype),
                 begin);
  }
  return TensorInfo{*dtype, *shape, begin, end - begin};
}

// Every byte of the data belongs to exactly one tensor.
void check_layout(const SafetensorsHeader& header, std::uint64_t data_bytes, Problems& problems) {
  std::vector<const std::pair<std::string, TensorInfo>*> order;
  for (const auto& tensor : header.tensors) order.push_back(&tensor);
  std::ranges::sort(order, {}, [](const auto* t) {
    return std::pair(t->second.offset, t->second.offset + t->second.bytes);
  });
  std::uint64_t end = 0;
  for (const auto* t : order) {
    if (t->second.offset != end) {
      problems.add("{}: begins at byte {} of the data, but the tensor before it ends at {} ({})",
                   shown(t->first), t->second.offset, end,
                   t->second.offset > end ? "a hole" : "an overlap");
    }
    end = std::max(end, t->second.offset + t->second.bytes);
  }
  if (end != data_bytes) {
    problems.add("the tensors end at byte {} of the data, which has {} bytes", end, data_bytes);
  }
}

}  // namespace

SafetensorsHeader parse_safetensors_header(const std::filesystem::path& path,
                                           std::span<const std::byte> file) {
  if (file.size() < kLengthBytes) {
    throw CheckpointError("'{}' is not a safetensors file: {} bytes, too short for a header length",
                          path.string(), file.size());
  }
  std::uint64_t length = 0;
  for (std::size_t i = kLengthBytes; i-- > 0;)
    length = length << 8 | std::to_integer<std::uint64_t>(file[i]);
  if (length > kMaxHeaderBytes || length > file.size() - kLengthBytes) {
    throw CheckpointError(
        "'{}' is not a safetensors file, or was cut short: its header claims {} bytes, the file "
        "has "
        "{} (headers are at most {})",
        path.string(), length, file.size(), kMaxHeaderBytes);
  }
  const auto* text = reinterpret_cast<const char*>(file.data()) + kLengthBytes;
  if (length == 0 || text[0] != '{') {
    throw CheckpointError("'{}' is not a safetensors file: its header does not begin with '{{'",
                          path.string());
  }
  // The JSON parser would take it for the end of the text.
  if (const void* zero = std::memchr(text, 0, length)) {
    throw CheckpointError(
        "'{}' is not a safetensors file: its header is broken at byte {}: a zero byte",
        path.string(),
        kLengthBytes + static_cast<std::size_t>(static_cast<const char*>(zero) - text));
  }
  Problems problems;
  HeaderReader reader(path.string(), problems);
  nlohmann::json::sax_parse(text, text + length, &reader);

  const std::uint64_t data_bytes = file.size() - kLengthBytes - length;
  SafetensorsHeader header;
  for (Entry& entry : reader.entries) {
    if (auto info = check_entry(entry, data_bytes, problems)) {
      header.tensors.emplace_back(std::move(entry.name), *info);
    }
  }
  if (problems.empty()) check_layout(header, data_bytes, problems);
  problems.throw_if_any(path.string());
  for (auto& [name, info] : header.tensors) info.offset += kLengthBytes + length;
  header.metadata = std::move(reader.metadata);
  return header;
}

}  // namespace carousel
