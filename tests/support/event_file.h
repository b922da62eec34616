// Reads TensorBoard's event files strictly, with nothing of what writes them.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/temp_dir.h"

namespace carousel::testing {

struct ReadEvent {
  double wall_time = 0.0;
  std::int64_t step = 0;
  std::string file_version;
  bool start = false;  ///< a session_log with the status START
  std::map<std::string, float> scalars;
};

namespace event_file {

inline void require(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(std::string("event file: ") + what);
}

template <class T>
T take(std::string_view& bytes) {
  require(bytes.size() >= sizeof(T), "cut short");
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  bytes.remove_prefix(sizeof(T));
  return value;
}

inline std::string_view take(std::string_view& bytes, std::uint64_t size) {
  require(bytes.size() >= size, "cut short");
  const std::string_view head = bytes.substr(0, size);
  bytes.remove_prefix(size);
  return head;
}

/// Bit by bit from the polynomial's definition, highest power first.
inline std::uint32_t masked_crc(std::string_view bytes) {
  const auto reversed = [](std::uint32_t x, int bits) {
    std::uint32_t out = 0;
    for (int i = 0; i < bits; ++i) out |= (x >> i & 1u) << (bits - 1 - i);
    return out;
  };
  std::uint32_t crc = 0xffffffffu;
  for (const char c : bytes) {
    crc ^= reversed(static_cast<unsigned char>(c), 8) << 24;
    for (int bit = 0; bit < 8; ++bit) crc = crc << 1 ^ (crc >> 31 != 0 ? 0x1edc6f41u : 0u);
  }
  crc = reversed(~crc, 32);
  return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

inline std::uint64_t varint(std::string_view& bytes) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = take<std::uint8_t>(bytes);
    value |= std::uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
  throw std::runtime_error("event file: a varint without end");
}

inline void read_value(std::string_view bytes, ReadEvent& event) {
  std::string tag;
  float value = 0;
  while (!bytes.empty()) {
    const std::uint64_t key = varint(bytes);
    require(key == (1 << 3 | 2) || key == (2 << 3 | 5), "unknown field of Summary.Value");
    if (key == (1 << 3 | 2)) tag = take(bytes, varint(bytes));
    if (key == (2 << 3 | 5)) value = take<float>(bytes);
  }
  require(event.scalars.emplace(tag, value).second, "a tag twice");
}

inline ReadEvent read_event(std::string_view bytes) {
  ReadEvent event;
  while (!bytes.empty()) {
    switch (varint(bytes)) {
      case 1 << 3 | 1:
        event.wall_time = take<double>(bytes);
        break;
      case 2 << 3 | 0:
        event.step = static_cast<std::int64_t>(varint(bytes));
        break;
      case 3 << 3 | 2:
        event.file_version = take(bytes, varint(bytes));
        break;
      case 5 << 3 | 2:
        for (std::string_view summary = take(bytes, varint(bytes)); !summary.empty();) {
          require(varint(summary) == (1 << 3 | 2), "unknown field of Summary");
          read_value(take(summary, varint(summary)), event);
        }
        break;
      case 7 << 3 | 2: {
        const std::string_view log = take(bytes, varint(bytes));
        require(log == std::string_view("\x08\x01", 2), "unknown SessionLog");
        event.start = true;
        break;
      }
      default:
        throw std::runtime_error("event file: unknown field of Event");
    }
  }
  return event;
}

}  // namespace event_file

/// All events of a file. Throws std::runtime_error where TensorBoard would stumble, and on fields
/// that a run does not write.
inline std::vector<ReadEvent> read_events(const std::string& path) {
  using namespace event_file;
  const std::string file = read_file(path);
  std::vector<ReadEvent> events;
  for (std::string_view rest = file; !rest.empty();) {
    const std::string_view length = rest.substr(0, 8);
    const auto size = take<std::uint64_t>(rest);
    require(take<std::uint32_t>(rest) == masked_crc(length), "a length's CRC is wrong");
    const std::string_view data = take(rest, size);
    require(take<std::uint32_t>(rest) == masked_crc(data), "a record's CRC is wrong");
    events.push_back(read_event(data));
  }
  return events;
}

}  // namespace carousel::testing
