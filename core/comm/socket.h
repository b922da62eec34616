// TCP sockets for the store: blocking calls with deadlines, errors as exceptions.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace carousel::comm {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

/// Owns a file descriptor.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  ~Socket() { close(); }
  Socket(Socket&& other) noexcept : descriptor_(other.release()) {}
  Socket& operator=(Socket&& other) noexcept;

  int descriptor() const { return descriptor_; }
  bool valid() const { return descriptor_ >= 0; }
  void close();

  /// Sends or receives exactly `bytes` bytes. Throws PeerError with the system's reason, at the
  /// deadline, where the other end closes the connection, or soon after `given_up` has become true.
  void send(const void* data, std::size_t bytes, Clock::time_point deadline,
            const std::atomic<bool>* given_up = nullptr) const;
  void receive(void* data, std::size_t bytes, Clock::time_point deadline,
               const std::atomic<bool>* given_up = nullptr) const;

  /// Numeric address of this end.
  std::string local_address() const;

 private:
  int release();
  int descriptor_ = -1;
};

/// Listens on all interfaces at `port` (0: any free one), non-blocking. Throws UsageError if the
/// port is taken.
Socket listen_on(std::uint16_t port);
/// The port that a socket is bound to.
std::uint16_t port_of(const Socket& socket);
/// Connects, trying again until the deadline: the server may not be up yet, nor its name known.
/// Throws PeerError then, or UsageError if the host name does not exist.
Socket connect_to(const std::string& host, std::uint16_t port, Clock::time_point deadline);

}  // namespace carousel::comm
