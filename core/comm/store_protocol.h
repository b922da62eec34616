// What travels between TcpStore and StoreServer. All numbers are little-endian, as is every machine
// that Carousel runs on.
#pragma once

#include <bit>
#include <cstdint>

namespace carousel::comm {

static_assert(std::endian::native == std::endian::little);

/// The client's first bytes, which the server sends back.
inline constexpr char kStoreGreeting[8] = {'C', 'R', 'S', 'L', 'K', 'V', '0', '1'};

enum class StoreOperation : std::uint8_t { kSet, kSetOnce, kGet, kAdd, kWill, kGoodbye };
inline constexpr int kNumStoreOperations = 6;

/// Then come the key's and the value's bytes.
struct StoreRequest {
  std::uint32_t operation = 0;
  std::uint32_t key_bytes = 0;
  std::uint32_t value_bytes = 0;
  std::uint32_t timeout_ms = 0;  ///< of kGet
};

enum class StoreStatus : std::uint32_t { kOk, kTimeout };

/// Then come the value's bytes.
struct StoreResponse {
  std::uint32_t status = 0;
  std::uint32_t value_bytes = 0;
};

}  // namespace carousel::comm
