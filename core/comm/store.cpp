#include "core/comm/store.h"

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <cstring>

#include "core/base/error.h"
#include "core/comm/store_protocol.h"

namespace carousel::comm {
namespace {

std::int64_t to_number(std::string_view text) {
  std::int64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

}  // namespace

std::vector<std::string> Store::wait(const std::vector<std::string>& keys, Milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  std::vector<std::string> missing;
  for (const std::string& key : keys) {
    const auto left = std::chrono::duration_cast<Milliseconds>(deadline - Clock::now());
    if (!get(key, std::max(left, Milliseconds{0}))) missing.push_back(key);
  }
  return missing;
}

struct MemoryStore::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::string, std::string, std::less<>> values;
};

MemoryStore::MemoryStore() : shared_(std::make_shared<Shared>()) {}
MemoryStore::MemoryStore(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

void MemoryStore::set(const std::string& key, std::string_view value) {
  const std::lock_guard lock(shared_->mutex);
  shared_->values.insert_or_assign(key, std::string(value));
  shared_->changed.notify_all();
}

void MemoryStore::set_once(const std::string& key, std::string_view value) {
  const std::lock_guard lock(shared_->mutex);
  shared_->values.emplace(key, value);
  shared_->changed.notify_all();
}

std::optional<std::string> MemoryStore::get(const std::string& key, Milliseconds timeout) {
  std::unique_lock lock(shared_->mutex);
  const auto there = [&] { return shared_->values.contains(key); };
  if (!shared_->changed.wait_until(lock, Clock::now() + timeout, there)) return std::nullopt;
  return shared_->values.at(key);
}

std::int64_t MemoryStore::add(const std::string& key, std::int64_t delta) {
  const std::lock_guard lock(shared_->mutex);
  std::string& value = shared_->values[key];
  const std::int64_t sum = to_number(value) + delta;
  value = std::to_string(sum);
  shared_->changed.notify_all();
  return sum;
}

std::unique_ptr<Store> MemoryStore::another() const {
  return std::unique_ptr<Store>(new MemoryStore(shared_));
}

TcpStore::TcpStore(const std::string& host, std::uint16_t port, Milliseconds timeout,
                   std::string prefix)
    : host_(host), port_(port), timeout_(timeout), prefix_(std::move(prefix)) {
  const auto deadline = Clock::now() + timeout;
  socket_ = connect_to(host, port, deadline);
  char reply[sizeof kStoreGreeting] = {};
  try {
    socket_.send(kStoreGreeting, sizeof kStoreGreeting, deadline);
    socket_.receive(reply, sizeof reply, deadline);
  } catch (const PeerError& e) {
    throw StoreGone("the store at {}:{} does not answer: {}; is it another program's port?", host,
                    port, e.what());
  }
  if (std::memcmp(reply, kStoreGreeting, sizeof reply) != 0) {
    throw UsageError("{}:{} is the port of another program; choose another MASTER_PORT", host,
                     port);
  }
}

TcpStore::~TcpStore() {
  try {
    set_patience(Milliseconds{1000});
    call(static_cast<std::uint8_t>(StoreOperation::kGoodbye), "", "", Milliseconds{0});
  } catch (const PeerError&) {
    // The server is gone already.
  }
}

std::optional<std::string> TcpStore::call(std::uint8_t operation, const std::string& key,
                                          std::string_view value, Milliseconds timeout) {
  const std::string full = key.empty() ? "" : prefix_ + key;
  CAROUSEL_CHECK(full.size() <= kMaxKey && value.size() <= kMaxValue,
                 "store: a key of {} and a value of {} bytes", full.size(), value.size());
  const auto wait = std::clamp<Milliseconds::rep>(timeout.count(), 0, 1 << 30);
  const StoreRequest request{operation, static_cast<std::uint32_t>(full.size()),
                             static_cast<std::uint32_t>(value.size()),
                             static_cast<std::uint32_t>(wait)};
  std::string message(reinterpret_cast<const char*>(&request), sizeof request);
  message += full;
  message += value;
  const std::lock_guard lock(mutex_);
  const auto deadline = Clock::now() + Milliseconds{wait} + patience_.load();
  try {
    if (!socket_.valid() || *gone_) throw PeerError("the connection was closed");
    socket_.send(message.data(), message.size(), deadline, gone_.get());
    StoreResponse response;
    socket_.receive(&response, sizeof response, deadline, gone_.get());
    if (response.value_bytes > kMaxValue) {
      throw PeerError("an answer of {} bytes", response.value_bytes);
    }
    std::string answer(response.value_bytes, '\0');
    socket_.receive(answer.data(), answer.size(), deadline, gone_.get());
    if (response.status == static_cast<std::uint32_t>(StoreStatus::kTimeout)) return std::nullopt;
    return answer;
  } catch (const PeerError& e) {
    socket_.close();  // a half-read answer must not be taken for the next one
    give_up();
    throw StoreGone("the store at {}:{} is gone: {}", host_, port_, e.what());
  }
}

void TcpStore::set(const std::string& key, std::string_view value) {
  call(static_cast<std::uint8_t>(StoreOperation::kSet), key, value, Milliseconds{0});
}

void TcpStore::set_once(const std::string& key, std::string_view value) {
  call(static_cast<std::uint8_t>(StoreOperation::kSetOnce), key, value, Milliseconds{0});
}

std::optional<std::string> TcpStore::get(const std::string& key, Milliseconds timeout) {
  return call(static_cast<std::uint8_t>(StoreOperation::kGet), key, "", timeout);
}

std::int64_t TcpStore::add(const std::string& key, std::int64_t delta) {
  return to_number(*call(static_cast<std::uint8_t>(StoreOperation::kAdd), key,
                         std::to_string(delta), Milliseconds{0}));
}

void TcpStore::set_will(const std::string& key, std::string_view value) {
  call(static_cast<std::uint8_t>(StoreOperation::kWill), key, value, Milliseconds{0});
}

std::unique_ptr<Store> TcpStore::another() const {
  auto store = std::make_unique<TcpStore>(host_, port_, timeout_, prefix_);
  store->gone_ = gone_;
  return store;
}

std::string TcpStore::local_address() const { return socket_.local_address(); }

}  // namespace carousel::comm
