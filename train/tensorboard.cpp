#include "train/tensorboard.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>
#include <system_error>

#include "core/base/error.h"
#include "train/environment.h"

namespace carousel {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are written as they lie");

constexpr std::string_view kPrefix = "events.out.tfevents.";

constexpr std::array<std::uint32_t, 256> kCrcOfByte = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
    table[byte] = crc;
  }
  return table;
}();

template <class T>
void append_raw(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// A CRC of data that holds CRCs is weak, hence the mask.
std::uint32_t masked_crc(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xa282ead8u;
}

// A message in protobuf's wire format: each field is a key, 8 · number + wire type, and a value.
class Message {
 public:
  Message& integer(std::uint64_t field, std::uint64_t value) {
    return varint(8 * field).varint(value);
  }
  Message& real(std::uint64_t field, double value) {
    varint(8 * field + 1);
    append_raw(text_, value);
    return *this;
  }
  Message& real(std::uint64_t field, float value) {
    varint(8 * field + 5);
    append_raw(text_, value);
    return *this;
  }
  Message& bytes(std::uint64_t field, std::string_view value) {
    varint(8 * field + 2).varint(value.size());
    text_ += value;
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  Message& varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) text_ += static_cast<char>(value | 0x80);
    text_ += static_cast<char>(value);
    return *this;
  }

  std::string text_;
};

// Field numbers of Event, Summary, Summary.Value and SessionLog.
Message event() {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  return Message().real(1, now.count());
}
Message event(std::int64_t step) { return event().integer(2, static_cast<std::uint64_t>(step)); }
Message version_event() { return event().bytes(3, "brain.Event:2"); }
Message start_event(std::int64_t step) {
  constexpr std::uint64_t kStart = 1;
  return event(step).bytes(7, Message().integer(1, kStart).text());
}
Message scalar(const std::string& tag, double value) {
  return Message().bytes(1, tag).real(2, static_cast<float>(value));
}

// The seconds in a file's name, ten digits; 0 if it has none.
std::int64_t seconds_of(std::string_view name) {
  std::int64_t seconds = 0;
  if (name.starts_with(kPrefix)) {
    name = name.substr(kPrefix.size(), 10);
    std::from_chars(name.data(), name.data() + name.size(), seconds);
  }
  return seconds;
}

std::filesystem::path new_path(const std::filesystem::path& directory) {
  std::int64_t seconds = std::chrono::duration_cast<std::chrono::seconds>(
                             std::chrono::system_clock::now().time_since_epoch())
                             .count();
  try {
    std::filesystem::create_directories(directory);
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      seconds = std::max(seconds, seconds_of(entry.path().filename().string()) + 1);
    }
  } catch (const std::filesystem::filesystem_error& e) {
    throw UsageError("cannot write '{}': {}; choose a writable output_dir", directory.string(),
                     e.code().message());
  }
  return directory / fmt::format("{}{:010}.{}.{}", kPrefix, seconds, host_name(), ::getpid());
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = 0xffffffffu;
  for (const char byte : bytes) {
    crc = (crc >> 8) ^ kCrcOfByte[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  }
  return ~crc;
}

std::string tfrecord(std::string_view data) {
  std::string record;
  append_raw(record, std::uint64_t{data.size()});
  append_raw(record, masked_crc(record));
  record += data;
  append_raw(record, masked_crc(data));
  return record;
}

std::string scalar_tag(std::string_view key) {
  if (key.starts_with("val_")) return fmt::format("eval/{}", key.substr(4));
  if (key.starts_with("checkpoint_")) return fmt::format("checkpoint/{}", key.substr(11));
  return fmt::format("train/{}", key);
}

EventFile::EventFile(const std::filesystem::path& directory, std::int64_t resumed_step)
    : file_(new_path(directory)) {
  file_.write(tfrecord(version_event().text()));
  file_.write(tfrecord(start_event(resumed_step + 1).text()));
}

void EventFile::write(const nlohmann::json& record) {
  Message summary;
  for (const auto& [key, value] : record.items()) {
    if (key == "step" || !value.is_number()) continue;
    summary.bytes(1, scalar(scalar_tag(key), value.get<double>()).text());
  }
  const auto step = record.at("step").get<std::int64_t>();
  file_.write(tfrecord(event(step).bytes(5, summary.text()).text()));
}

}  // namespace carousel
