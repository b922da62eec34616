// The rendezvous store: a few small keys and values that all ranks share. It brings ranks together,
// carries their heartbeats, and tells why one of them left.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "core/comm/socket.h"

namespace carousel::comm {

/// The store's server cannot be reached any more.
class StoreGone : public PeerError {
 public:
  using PeerError::PeerError;
};

/// Thread-safe; calls of one Store wait for each other.
class Store {
 public:
  static constexpr std::size_t kMaxKey = 1024;
  static constexpr std::size_t kMaxValue = std::size_t{16} << 20;

  virtual ~Store() = default;
  virtual void set(const std::string& key, std::string_view value) = 0;
  /// Sets the key unless it has a value already.
  virtual void set_once(const std::string& key, std::string_view value) = 0;
  /// The value as soon as there is one; nothing if there is none within `timeout`.
  virtual std::optional<std::string> get(const std::string& key, Milliseconds timeout) = 0;
  /// Adds to a counter, which starts at 0, and returns the sum.
  virtual std::int64_t add(const std::string& key, std::int64_t delta) = 0;
  /// Last will: the store does set_once(key, value) if this Store vanishes without being destroyed,
  /// as it does when its process dies. Replaces the will before it.
  virtual void set_will(const std::string& key, std::string_view value) = 0;
  /// An independent handle on the same store, for another thread.
  virtual std::unique_ptr<Store> another() const = 0;
  /// How much longer than its own time-out a call may take, before the store counts as gone.
  virtual void set_patience(Milliseconds patience) = 0;
  /// The store is gone: ends all calls of this handle and of those that come from the same one, and
  /// lets them fail from now on.
  virtual void give_up() noexcept = 0;
  /// The numeric address by which this machine reaches the store.
  virtual std::string local_address() const = 0;

  /// Waits for all keys together; returns those that had no value within `timeout`.
  std::vector<std::string> wait(const std::vector<std::string>& keys, Milliseconds timeout);
};

/// A store in this process.
class MemoryStore final : public Store {
 public:
  MemoryStore();
  void set(const std::string& key, std::string_view value) override;
  void set_once(const std::string& key, std::string_view value) override;
  std::optional<std::string> get(const std::string& key, Milliseconds timeout) override;
  std::int64_t add(const std::string& key, std::int64_t delta) override;
  void set_will(const std::string&, std::string_view) override {}  // threads die together
  std::unique_ptr<Store> another() const override;
  void set_patience(Milliseconds) override {}
  void give_up() noexcept override {}
  std::string local_address() const override { return "127.0.0.1"; }

 private:
  struct Shared;
  explicit MemoryStore(std::shared_ptr<Shared> shared);
  std::shared_ptr<Shared> shared_;
};

/// A client of a StoreServer. Every method but the destructor throws StoreGone, which names the
/// server, when the server cannot be reached any more; after one, all handles fail at once.
class TcpStore final : public Store {
 public:
  /// Connects within `timeout`. Throws StoreGone if there is a server that does not answer. All
  /// keys get `prefix` in front, so that several groups, or one group's attempts, can share a
  /// server.
  TcpStore(const std::string& host, std::uint16_t port, Milliseconds timeout,
           std::string prefix = "");
  ~TcpStore() override;

  void set(const std::string& key, std::string_view value) override;
  void set_once(const std::string& key, std::string_view value) override;
  std::optional<std::string> get(const std::string& key, Milliseconds timeout) override;
  std::int64_t add(const std::string& key, std::int64_t delta) override;
  void set_will(const std::string& key, std::string_view value) override;
  std::unique_ptr<Store> another() const override;
  void set_patience(Milliseconds patience) override { patience_ = patience; }
  void give_up() noexcept override { *gone_ = true; }
  std::string local_address() const override;

 private:
  std::optional<std::string> call(std::uint8_t operation, const std::string& key,
                                  std::string_view value, Milliseconds timeout);

  std::string host_;
  std::uint16_t port_;
  Milliseconds timeout_;
  std::string prefix_;
  std::atomic<Milliseconds> patience_{Milliseconds{10000}};
  std::shared_ptr<std::atomic<bool>> gone_ = std::make_shared<std::atomic<bool>>(false);
  std::mutex mutex_;
  Socket socket_;
};

/// Serves a store from a thread until it is destroyed. What clients send is checked: a malformed
/// message ends its connection and nothing else.
class StoreServer {
 public:
  /// Listens on `port`, 0 for any free one. Throws UsageError if the port is taken.
  explicit StoreServer(std::uint16_t port);
  ~StoreServer();
  StoreServer(const StoreServer&) = delete;
  StoreServer& operator=(const StoreServer&) = delete;

  std::uint16_t port() const { return port_; }

 private:
  void serve();

  Socket listener_;
  std::uint16_t port_;
  Socket stop_reader_, stop_writer_;
  std::thread thread_;
};

}  // namespace carousel::comm
