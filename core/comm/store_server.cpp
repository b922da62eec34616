#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <list>

#include "core/base/error.h"
#include "core/comm/store.h"
#include "core/comm/store_protocol.h"

namespace carousel::comm {
namespace {

// What all clients together may store.
constexpr std::size_t kMaxStored = std::size_t{256} << 20;

struct Connection {
  explicit Connection(Socket s) : socket(std::move(s)) {}

  Socket socket;
  bool greeted = false;
  std::string in, out;
  std::optional<std::string> waiting_for;  // key of a get without an answer yet
  Clock::time_point deadline{};            // of that get
  std::string will_key, will_value;        // no will: the key is empty
  bool closed = false;
};

// The state of one server; its thread alone touches it.
class Server {
 public:
  void accept_from(const Socket& listener) {
    for (;;) {
      Socket socket(
          ::accept4(listener.descriptor(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!socket.valid()) return;
      const int on = 1;
      ::setsockopt(socket.descriptor(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      ::setsockopt(socket.descriptor(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
      connections_.emplace_back(std::move(socket));
    }
  }

  std::list<Connection>& connections() { return connections_; }

  void read_from(Connection& c) {
    char buffer[1 << 16];
    for (;;) {
      const ssize_t n = ::recv(c.socket.descriptor(), buffer, sizeof buffer, 0);
      if (n > 0) {
        c.in.append(buffer, static_cast<std::size_t>(n));
        while (!c.closed && take_message(c)) {
        }
        if (c.closed) return;
      } else {
        const bool later = n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
        if (!later) c.closed = true;
        return;
      }
    }
  }

  void write_to(Connection& c) {
    while (!c.out.empty()) {
      const ssize_t n =
          ::send(c.socket.descriptor(), c.out.data(), c.out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) c.closed = true;
        return;
      }
      c.out.erase(0, static_cast<std::size_t>(n));
    }
  }

  /// Answers gets whose time is up, executes the wills of closed connections, and forgets them.
  void tidy(Clock::time_point now) {
    for (Connection& c : connections_) {
      if (c.waiting_for && c.deadline <= now) {
        c.waiting_for.reset();
        respond(c, StoreStatus::kTimeout, "");
      }
    }
    for (auto c = connections_.begin(); c != connections_.end();) {
      if (!c->closed) write_to(*c);
      if (!c->closed) {
        ++c;
        continue;
      }
      if (!c->will_key.empty() && !values_.contains(c->will_key)) {
        store(c->will_key, c->will_value);
      }
      c = connections_.erase(c);
    }
  }

  /// Milliseconds until the next get's time is up; -1: there is none.
  int next_deadline(Clock::time_point now) const {
    auto soonest = Clock::time_point::max();
    for (const Connection& c : connections_) {
      if (c.waiting_for) soonest = std::min(soonest, c.deadline);
    }
    if (soonest == Clock::time_point::max()) return -1;
    const auto left = std::chrono::ceil<Milliseconds>(soonest - now).count();
    return static_cast<int>(std::clamp<std::int64_t>(left, 0, 1 << 30));
  }

 private:
  // Takes one whole message off c.in; false if there is none yet.
  bool take_message(Connection& c) {
    if (!c.greeted) {
      const std::size_t known = std::min(c.in.size(), sizeof kStoreGreeting);
      if (std::memcmp(c.in.data(), kStoreGreeting, known) != 0) return !(c.closed = true);
      if (known < sizeof kStoreGreeting) return false;
      c.greeted = true;
      c.in.erase(0, known);
      c.out.append(kStoreGreeting, sizeof kStoreGreeting);
      return true;
    }
    StoreRequest request;
    if (c.in.size() < sizeof request) return false;
    std::memcpy(&request, c.in.data(), sizeof request);
    const bool sound = request.operation < kNumStoreOperations &&
                       request.key_bytes <= Store::kMaxKey &&
                       request.value_bytes <= Store::kMaxValue && !c.waiting_for;
    if (!sound) return !(c.closed = true);
    const std::size_t whole = sizeof request + request.key_bytes + request.value_bytes;
    if (c.in.size() < whole) return false;
    const std::string key = c.in.substr(sizeof request, request.key_bytes);
    std::string value = c.in.substr(sizeof request + request.key_bytes, request.value_bytes);
    c.in.erase(0, whole);
    execute(c, request, key, std::move(value));
    return true;
  }

  void execute(Connection& c, const StoreRequest& request, const std::string& key,
               std::string value) {
    switch (static_cast<StoreOperation>(request.operation)) {
      case StoreOperation::kSet:
        if (!store(key, std::move(value))) c.closed = true;
        break;
      case StoreOperation::kSetOnce:
        if (!values_.contains(key) && !store(key, std::move(value))) c.closed = true;
        break;
      case StoreOperation::kGet:
        if (const auto found = values_.find(key); found != values_.end()) {
          respond(c, StoreStatus::kOk, found->second);
        } else {
          c.waiting_for = key;
          c.deadline = Clock::now() + Milliseconds{request.timeout_ms};
        }
        return;
      case StoreOperation::kAdd: {
        const std::string sum = add(key, value);
        c.closed = sum.empty();
        respond(c, StoreStatus::kOk, sum);
        return;
      }
      case StoreOperation::kWill:
        c.will_key = key;
        c.will_value = std::move(value);
        break;
      case StoreOperation::kGoodbye:
        c.will_key.clear();
        break;
    }
    respond(c, StoreStatus::kOk, "");
  }

  // False if there is no room.
  bool store(const std::string& key, std::string value) {
    const auto found = values_.find(key);
    const std::size_t old = found == values_.end() ? 0 : key.size() + found->second.size();
    const std::size_t bytes = key.size() + value.size();
    if (stored_ - old + bytes > kMaxStored) return false;
    stored_ = stored_ - old + bytes;
    const std::string& kept = values_.insert_or_assign(key, std::move(value)).first->second;
    for (Connection& c : connections_) {
      if (c.waiting_for == key) {
        c.waiting_for.reset();
        respond(c, StoreStatus::kOk, kept);
      }
    }
    return true;
  }

  // The new sum; empty if `delta` or what the key holds is no number.
  std::string add(const std::string& key, const std::string& delta) {
    const auto parse = [](const std::string& text, std::int64_t& number) {
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
      return error == std::errc() && end == text.data() + text.size();
    };
    std::int64_t before = 0;
    std::int64_t more = 0;
    std::int64_t sum = 0;
    const auto found = values_.find(key);
    if (!parse(delta, more) || (found != values_.end() && !parse(found->second, before)) ||
        __builtin_add_overflow(before, more, &sum) || !store(key, std::to_string(sum))) {
      return "";
    }
    return std::to_string(sum);
  }

  static void respond(Connection& c, StoreStatus status, std::string_view value) {
    const StoreResponse response{static_cast<std::uint32_t>(status),
                                 static_cast<std::uint32_t>(value.size())};
    c.out.append(reinterpret_cast<const char*>(&response), sizeof response);
    c.out.append(value);
  }

  std::list<Connection> connections_;
  std::map<std::string, std::string> values_;
  std::size_t stored_ = 0;  // bytes of keys and values
};

}  // namespace

StoreServer::StoreServer(std::uint16_t port)
    : listener_(listen_on(port)), port_(port_of(listener_)) {
  int ends[2] = {};
  if (::pipe2(ends, O_CLOEXEC) != 0) throw PeerError("pipe: {}", std::strerror(errno));
  stop_reader_ = Socket(ends[0]);
  stop_writer_ = Socket(ends[1]);
  thread_ = std::thread([this] { serve(); });
}

StoreServer::~StoreServer() {
  stop_writer_.close();
  thread_.join();
}

void StoreServer::serve() {
  Server server;
  std::vector<pollfd> entries;
  for (;;) {
    entries.assign({{stop_reader_.descriptor(), POLLIN, 0}, {listener_.descriptor(), POLLIN, 0}});
    for (const Connection& c : server.connections()) {
      const int events = POLLIN | (c.out.empty() ? 0 : POLLOUT);
      entries.push_back({c.socket.descriptor(), static_cast<short>(events), 0});
    }
    ::poll(entries.data(), entries.size(), server.next_deadline(Clock::now()));
    if (entries[0].revents != 0) return;
    std::size_t i = 2;
    for (Connection& c : server.connections()) {
      if (entries[i++].revents != 0) server.read_from(c);
    }
    if (entries[1].revents != 0) server.accept_from(listener_);
    server.tidy(Clock::now());
  }
}

}  // namespace carousel::comm
