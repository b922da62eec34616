#include "core/comm/store.h"

#include <gtest/gtest.h>

#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>
#include <fstream>

#include "core/base/error.h"
#include "core/comm/store_protocol.h"
#include "tests/support/errors.h"

namespace carousel::comm {
namespace {

using testing::expect_error;
constexpr Milliseconds kNow{0};
constexpr Milliseconds kLong{5000};
constexpr Milliseconds kShort{30};

Clock::time_point soon() { return Clock::now() + kLong; }

// Both kinds of store behave alike.
void expect_a_store(Store& store, Store& other) {
  EXPECT_FALSE(store.get("absent", kShort));
  store.set("a", std::string_view("one\0two", 7));
  EXPECT_EQ(other.get("a", kNow), std::string("one\0two", 7));
  store.set("a", "");
  EXPECT_EQ(other.get("a", kNow), "");
  store.set_once("a", "late");
  EXPECT_EQ(other.get("a", kNow), "");
  store.set_once("b", "first");
  EXPECT_EQ(other.get("b", kNow), "first");
  EXPECT_EQ(store.add("n", 3), 3);
  EXPECT_EQ(other.add("n", -5), -2);
  EXPECT_EQ(store.wait({"a", "x", "b", "y"}, kShort), (std::vector<std::string>{"x", "y"}));
  std::thread setter([&] {
    std::this_thread::sleep_for(kShort);
    other.set("later", "here");
  });
  EXPECT_EQ(store.get("later", kLong), "here");
  setter.join();
}

TEST(DistStore, SharesValuesInOneProcess) {
  MemoryStore store;
  expect_a_store(store, *store.another());
}

TEST(DistStore, SharesValuesOverTcp) {
  const StoreServer server(0);
  TcpStore store("127.0.0.1", server.port(), kLong);
  expect_a_store(store, *store.another());
  EXPECT_EQ(store.local_address(), "127.0.0.1");
}

TEST(DistStore, PrefixesKeepGroupsApart) {
  const StoreServer server(0);
  TcpStore one("localhost", server.port(), kLong, "one/");
  TcpStore two("localhost", server.port(), kLong, "two/");
  one.set("key", "1");
  EXPECT_FALSE(two.get("key", kShort));
  TcpStore all("localhost", server.port(), kLong);
  EXPECT_EQ(all.get("one/key", kNow), "1");
}

TEST(DistStore, CarriesLargeValues) {
  const StoreServer server(0);
  TcpStore store("127.0.0.1", server.port(), kLong);
  const std::string large(Store::kMaxValue, 'x');
  store.set("large", large);
  EXPECT_EQ(store.get("large", kNow), large);
  expect_error<InternalError>([&] { store.set("larger", large + "x"); }, {"16777217"});
  expect_error<InternalError>([&] { store.set(std::string(1025, 'k'), ""); }, {"1025"});
}

TEST(DistStore, ExecutesTheWillOfAVanishedClient) {
  const StoreServer server(0);
  TcpStore store("127.0.0.1", server.port(), kLong);
  {
    // A client that is cut off, as by the death of its process.
    Socket raw = connect_to("127.0.0.1", server.port(), soon());
    raw.send(kStoreGreeting, sizeof kStoreGreeting, soon());
    const StoreRequest will{static_cast<std::uint32_t>(StoreOperation::kWill), 4, 4, 0};
    raw.send(&will, sizeof will, soon());
    raw.send("deaddust", 8, soon());
    char answer[sizeof kStoreGreeting + sizeof(StoreResponse)];
    raw.receive(answer, sizeof answer, soon());
  }
  EXPECT_EQ(store.get("dead", kLong), "dust");
  {
    TcpStore leaving("127.0.0.1", server.port(), kLong);
    leaving.set_will("left", "never");
  }
  EXPECT_FALSE(store.get("left", kShort));
}

TEST(DistStore, SurvivesMalformedMessages) {
  const StoreServer server(0);
  TcpStore store("127.0.0.1", server.port(), kLong);
  const auto send = [&](const void* data, std::size_t bytes, bool greet) {
    Socket raw = connect_to("127.0.0.1", server.port(), soon());
    if (greet) {
      raw.send(kStoreGreeting, sizeof kStoreGreeting, soon());
      char greeting[sizeof kStoreGreeting];
      raw.receive(greeting, sizeof greeting, soon());
    }
    raw.send(data, bytes, soon());
    char byte = 0;
    expect_error<PeerError>([&] { raw.receive(&byte, 1, soon()); }, {""});
  };
  send("GET / HTTP/1.1\r\n\r\n", 18, false);
  const StoreRequest unknown{kNumStoreOperations, 1, 0, 0};
  send(&unknown, sizeof unknown, true);
  const StoreRequest long_key{0, Store::kMaxKey + 1, 0, 0};
  send(&long_key, sizeof long_key, true);
  const StoreRequest long_value{0, 1, static_cast<std::uint32_t>(Store::kMaxValue + 1), 0};
  send(&long_value, sizeof long_value, true);
  struct {
    StoreRequest request{static_cast<std::uint32_t>(StoreOperation::kAdd), 1, 3, 0};
    char text[4] = {'k', '1', 'x', '2'};
  } no_number;
  send(&no_number, sizeof no_number, true);
  store.set("still", "there");
  EXPECT_EQ(store.get("still", kNow), "there");
}

TEST(DistStore, RefusesATakenPort) {
  const StoreServer server(0);
  expect_error<UsageError>([&] { StoreServer(server.port()); },
                           {std::to_string(server.port()), "in use", "MASTER_PORT"});
}

TEST(DistStore, NamesAServerThatIsNotThere) {
  std::uint16_t port = 0;
  {
    const StoreServer server(0);
    port = server.port();
  }
  expect_error<PeerError>([&] { TcpStore("127.0.0.1", port, Milliseconds{150}); },
                          {fmt::format("127.0.0.1:{}", port),
                           "refused; rank 0 does not listen there", "MASTER_ADDR and MASTER_PORT"});
  expect_error<UsageError>([&] { TcpStore("no-such-host.invalid", port, Milliseconds{150}); },
                           {"no-such-host.invalid", "MASTER_ADDR"});
}

// In a network of this thread's own, where all connections begin at `port`.
bool have_one_port(std::uint16_t port) {
  if (::unshare(CLONE_NEWNET) != 0) return false;
  const Socket socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq loopback{.ifr_ifrn = {"lo"}, .ifr_ifru = {}};
  loopback.ifr_flags = IFF_UP;
  std::ofstream range("/proc/sys/net/ipv4/ip_local_port_range");
  range << port << ' ' << port << std::flush;
  return ::ioctl(socket.descriptor(), SIOCSIFFLAGS, &loopback) == 0 && range.good();
}

TEST(DistStore, DoesNotConnectToItself) {
  constexpr std::uint16_t kPort = 40001;
  bool possible = false;
  std::string message;
  std::thread([&] {
    possible = have_one_port(kPort);
    if (!possible) return;
    message =
        testing::message_of<PeerError>([&] { TcpStore("127.0.0.1", kPort, Milliseconds{150}); });
  }).join();
  if (!possible) GTEST_SKIP() << "this process may not have a network of its own";
  EXPECT_TRUE(message.starts_with("cannot reach 127.0.0.1:40001: ")) << message;
}

TEST(DistStore, TellsAnotherProgramsPort) {
  const Socket listener = listen_on(0);
  std::thread program([&] {
    int client = -1;
    while ((client = ::accept(listener.descriptor(), nullptr, nullptr)) < 0) {
      std::this_thread::sleep_for(Milliseconds{1});
    }
    const Socket socket(client);
    socket.send("HTTP/1.1 400\r\n", 14, soon());
    char byte = 0;
    EXPECT_THROW(
        {
          for (;;) socket.receive(&byte, 1, soon());
        },
        PeerError);
  });
  expect_error<UsageError>([&] { TcpStore("127.0.0.1", port_of(listener), kLong); },
                           {"another program", "MASTER_PORT"});
  program.join();
}

TEST(DistStore, FailsWhenTheServerGoes) {
  auto server = std::make_unique<StoreServer>(0);
  TcpStore store("127.0.0.1", server->port(), kLong);
  store.set("a", "b");
  server.reset();
  expect_error<PeerError>([&] { store.get("a", kNow); }, {"gone"});
  expect_error<PeerError>([&] { store.get("a", kNow); }, {"gone"});
}

// A server that is there, but answers nothing any more, as on a host that hangs.
TEST(DistStore, AServerThatFallsSilentIsGoneForAllHandles) {
  const Socket listener = listen_on(0);
  std::atomic<bool> over = false;
  std::thread program([&] {
    std::vector<Socket> clients;
    while (!over) {
      Socket client(::accept(listener.descriptor(), nullptr, nullptr));
      if (client.valid()) {
        client.send(kStoreGreeting, sizeof kStoreGreeting, soon());
        clients.push_back(std::move(client));
      } else {
        std::this_thread::sleep_for(Milliseconds{1});
      }
    }
  });
  TcpStore store("127.0.0.1", port_of(listener), kLong);
  const auto waiting = store.another();
  const auto other = store.another();
  other->set_patience(Milliseconds{100});
  std::thread waits([&] {
    expect_error<PeerError>([&] { waiting->get("a", kLong); }, {"is gone: no answer in time"});
  });
  const auto begin = Clock::now();
  expect_error<PeerError>([&] { other->set("a", "b"); }, {"is gone: no answer in time"});
  waits.join();  // ends with it, although it is patient
  expect_error<PeerError>([&] { store.get("a", kLong); }, {"is gone"});
  EXPECT_LT(Clock::now() - begin, kLong);
  over = true;
  program.join();
}

}  // namespace
}  // namespace carousel::comm
