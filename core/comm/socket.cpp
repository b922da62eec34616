#include "core/comm/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "core/base/error.h"
#include "core/base/log.h"

namespace carousel::comm {
namespace {

int milliseconds_until(Clock::time_point deadline) {
  const auto left = std::chrono::ceil<Milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 1 << 30));
}

void wait_until_ready(int descriptor, short events, Clock::time_point deadline,
                      const std::atomic<bool>* given_up = nullptr) {
  constexpr int kLook = 100;  // milliseconds
  pollfd entry{descriptor, events, 0};
  for (;;) {
    const int left = milliseconds_until(deadline);
    const int ready = ::poll(&entry, 1, given_up != nullptr ? std::min(left, kLook) : left);
    if (ready > 0) return;
    if (ready < 0 && errno != EINTR) throw PeerError("poll: {}", std::strerror(errno));
    if (left == 0 || (given_up != nullptr && *given_up)) throw PeerError("no answer in time");
  }
}

bool again(ssize_t result) {
  return result < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

void set_option(int descriptor, int level, int option) {
  const int on = 1;
  ::setsockopt(descriptor, level, option, &on, sizeof on);
}

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

Addresses resolve(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  if (error == EAI_AGAIN) throw PeerError("cannot resolve '{}': {}", host, ::gai_strerror(error));
  if (error != 0) {
    throw UsageError("cannot resolve the host '{}': {}; check MASTER_ADDR", host,
                     ::gai_strerror(error));
  }
  return Addresses(list);
}

// Whether this socket is its own peer: that is what a connection to a port of the same host becomes
// if nobody listens there and the system happens to give out that port for this end.
bool is_its_own_peer(const Socket& socket) {
  sockaddr_storage here{};
  sockaddr_storage there{};
  socklen_t size = sizeof here;
  socklen_t peer_size = sizeof there;
  return ::getsockname(socket.descriptor(), reinterpret_cast<sockaddr*>(&here), &size) == 0 &&
         ::getpeername(socket.descriptor(), reinterpret_cast<sockaddr*>(&there), &peer_size) == 0 &&
         size == peer_size && std::memcmp(&here, &there, size) == 0;
}

// One attempt; nothing, with errno set, if it fails.
std::optional<Socket> try_connect(const addrinfo& address, Clock::time_point deadline) {
  Socket socket(::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return std::nullopt;
  if (::connect(socket.descriptor(), address.ai_addr, address.ai_addrlen) != 0) {
    if (errno != EINPROGRESS) return std::nullopt;
    wait_until_ready(socket.descriptor(), POLLOUT, deadline);
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(socket.descriptor(), SOL_SOCKET, SO_ERROR, &error, &size);
    errno = error;
    if (error != 0) return std::nullopt;
  }
  if (is_its_own_peer(socket)) {
    errno = ECONNREFUSED;
    return std::nullopt;
  }
  set_option(socket.descriptor(), IPPROTO_TCP, TCP_NODELAY);
  set_option(socket.descriptor(), SOL_SOCKET, SO_KEEPALIVE);
  return socket;
}

}  // namespace

Socket& Socket::operator=(Socket&& other) noexcept {
  if (this != &other) {
    close();
    descriptor_ = other.release();
  }
  return *this;
}

int Socket::release() { return std::exchange(descriptor_, -1); }

void Socket::close() {
  if (descriptor_ >= 0) ::close(release());
}

void Socket::send(const void* data, std::size_t bytes, Clock::time_point deadline,
                  const std::atomic<bool>* given_up) const {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::send(descriptor_, from, bytes, MSG_NOSIGNAL);
    if (again(n)) {
      wait_until_ready(descriptor_, POLLOUT, deadline, given_up);
    } else if (n < 0) {
      throw PeerError("{}", std::strerror(errno));
    } else {
      from += n;
      bytes -= static_cast<std::size_t>(n);
    }
  }
}

void Socket::receive(void* data, std::size_t bytes, Clock::time_point deadline,
                     const std::atomic<bool>* given_up) const {
  char* to = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::recv(descriptor_, to, bytes, 0);
    if (again(n)) {
      wait_until_ready(descriptor_, POLLIN, deadline, given_up);
    } else if (n < 0) {
      throw PeerError("{}", std::strerror(errno));
    } else if (n == 0) {
      throw PeerError("the connection was closed");
    } else {
      to += n;
      bytes -= static_cast<std::size_t>(n);
    }
  }
}

std::string Socket::local_address() const {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  char text[NI_MAXHOST] = {};
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (::getsockname(descriptor_, generic, &size) != 0 ||
      ::getnameinfo(generic, size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0) {
    throw PeerError("this end of a connection has no address: {}", std::strerror(errno));
  }
  return text;
}

Socket listen_on(std::uint16_t port) {
  // IPv6 sockets take IPv4 connections too; a system without IPv6 has IPv4 alone.
  Socket socket(::socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in6 any6{};
  any6.sin6_family = AF_INET6;
  any6.sin6_port = htons(port);
  sockaddr_in any4{};
  any4.sin_family = AF_INET;
  any4.sin_port = htons(port);
  const bool six = socket.valid();
  if (!six) socket = Socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (six) {
    const int off = 0;
    ::setsockopt(socket.descriptor(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  }
  set_option(socket.descriptor(), SOL_SOCKET, SO_REUSEADDR);
  const auto* address =
      six ? reinterpret_cast<const sockaddr*>(&any6) : reinterpret_cast<const sockaddr*>(&any4);
  const socklen_t size = six ? sizeof any6 : sizeof any4;
  if (::bind(socket.descriptor(), address, size) != 0 ||
      ::listen(socket.descriptor(), SOMAXCONN) != 0) {
    throw UsageError("cannot listen on port {}: {}; choose another MASTER_PORT", port,
                     std::strerror(errno));
  }
  return socket;
}

std::uint16_t port_of(const Socket& socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  CAROUSEL_CHECK(
      ::getsockname(socket.descriptor(), reinterpret_cast<sockaddr*>(&address), &size) == 0,
      "getsockname: {}", std::strerror(errno));
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

Socket connect_to(const std::string& host, std::uint16_t port, Clock::time_point deadline) {
  constexpr Milliseconds kPause{50};
  auto next_word = Clock::now() + std::chrono::seconds(10);
  for (;;) {
    std::string reason;
    try {
      const Addresses addresses = resolve(host, port);
      for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
        if (auto socket = try_connect(*a, deadline)) return std::move(*socket);
        reason = std::strerror(errno);
      }
    } catch (const PeerError& e) {
      reason = e.what();
    } catch (const UsageError& e) {
      // Names of hosts that are about to start may not be known yet, as those of Kubernetes' pods.
      if (Clock::now() + kPause >= deadline) throw;
      reason = e.what();
    }
    if (Clock::now() + kPause >= deadline) {
      throw PeerError(
          "cannot reach {}:{}: {}; rank 0 does not listen there (yet): see whether it runs, and "
          "check MASTER_ADDR and MASTER_PORT",
          host, port, reason);
    }
    if (Clock::now() >= next_word) {
      const auto left = std::chrono::duration_cast<std::chrono::seconds>(deadline - Clock::now());
      log::warn("waiting for rank 0 at {}:{}, {} s at most: {}", host, port, left.count(), reason);
      next_word += std::chrono::seconds(30);
    }
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace carousel::comm
