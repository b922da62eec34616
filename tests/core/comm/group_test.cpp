#include "core/comm/group.h"

#include <gtest/gtest.h>

#include "core/comm/socket.h"
#include "tests/support/errors.h"
#include "tests/support/ranks.h"

namespace carousel::comm {
namespace {

using testing::Child;
using testing::finish;
using testing::start_child;

std::uint16_t free_port() { return StoreServer(0).port(); }

// Joins as one process of a group that rank 0 serves.
Child joins(const Placement& placement, const std::string& identity = "a=1\nb=2\n",
            int patience = 5000) {
  return start_child([=]() -> std::string {
    try {
      Group group(placement, kCpu, identity, Milliseconds{patience}, Milliseconds{5000});
      group.communicator().barrier("met");
      return "met";
    } catch (const Error& e) {
      return fmt::format("{}: {}", static_cast<int>(e.code()), e.what());
    }
  });
}

TEST(DistGroup, MeetsWhoeverComesFirst) {
  const std::uint16_t port = free_port();
  const Child two = joins({.rank = 2, .world_size = 3, .master_port = port});
  const Child one = joins({.rank = 1, .world_size = 3, .master_port = port});
  std::this_thread::sleep_for(Milliseconds{100});
  const Child zero = joins({.rank = 0, .world_size = 3, .master_port = port});
  EXPECT_EQ(finish(zero), "met");
  EXPECT_EQ(finish(one), "met");
  EXPECT_EQ(finish(two), "met");
}

TEST(DistGroup, NamesTheRanksThatAreMissing) {
  const std::uint16_t port = free_port();
  const Child zero = joins({.rank = 0, .world_size = 4, .master_port = port}, "", 1000);
  const Child two = joins({.rank = 2, .world_size = 4, .master_port = port}, "", 1000);
  const std::string expected =
      fmt::format("7: ranks 1 and 3 of 4 did not arrive at 127.0.0.1:{} within 1 s", port);
  EXPECT_EQ(finish(zero), expected);
  EXPECT_EQ(finish(two), expected);
}

TEST(DistGroup, RefusesTwoProcessesOfOneRank) {
  const std::uint16_t port = free_port();
  const Child zero = joins({.rank = 0, .world_size = 3, .master_port = port});
  const Child one = joins({.rank = 1, .world_size = 3, .master_port = port});
  const Child again = joins({.rank = 1, .world_size = 3, .master_port = port});
  for (const Child& child : {zero, one, again}) {
    EXPECT_EQ(finish(child).substr(0, 46), "2: two processes claim rank 1 of 3, the second");
  }
}

TEST(DistGroup, RefusesTwoProcessesOfRankZero) {
  const std::uint16_t port = free_port();
  const Child zero = joins({.rank = 0, .world_size = 2, .master_port = port});
  const Child again = joins({.rank = 0, .world_size = 2, .master_port = port});
  for (const Child& child : {zero, again}) {
    EXPECT_EQ(finish(child).substr(0, 46), "2: two processes claim rank 0 of 2, the second");
  }
}

TEST(DistGroup, RefusesTwoProcessesOnOneGpu) {
  const std::uint16_t port = free_port();
  const auto on = [&](int rank, const char* gpu) {
    return joins({.rank = rank, .world_size = 3, .master_port = port, .gpu = gpu});
  };
  const Child zero = on(0, "GPU-a");
  const Child one = on(1, "GPU-b");
  const Child two = on(2, "GPU-b");
  for (const Child& child : {zero, one, two}) {
    const std::string why = finish(child);
    EXPECT_TRUE(why.starts_with("2: ranks 1 and 2 are both on GPU-b;") ||
                why.starts_with("2: ranks 2 and 1 are both on GPU-b;"))
        << why;
  }
}

TEST(DistGroup, MeetsOnGpusOfTheirOwn) {
  const std::uint16_t port = free_port();
  const Child zero = joins({.rank = 0, .world_size = 2, .master_port = port, .gpu = "GPU-a"});
  const Child one = joins({.rank = 1, .world_size = 2, .master_port = port, .gpu = "GPU-b"});
  EXPECT_EQ(finish(zero), "met");
  EXPECT_EQ(finish(one), "met");
}

TEST(DistGroup, ALateProcessOfATakenRankIsRefusedAlone) {
  const std::uint16_t port = free_port();
  const auto stays = [=](int rank) {
    return start_child([=]() -> std::string {
      Group group({.rank = rank, .world_size = 2, .master_port = port}, kCpu, "same",
                  Milliseconds{5000}, Milliseconds{5000});
      group.communicator().barrier("met");
      std::this_thread::sleep_for(Milliseconds{600});
      group.communicator().barrier("still there");
      return "met";
    });
  };
  const Child zero = stays(0);
  const Child one = stays(1);
  std::this_thread::sleep_for(Milliseconds{300});
  EXPECT_EQ(finish(joins({.rank = 1, .world_size = 2, .master_port = port})).substr(0, 34),
            "2: two processes claim rank 1 of 2");
  EXPECT_EQ(finish(zero), "met");
  EXPECT_EQ(finish(one), "met");
}

TEST(DistGroup, RefusesDifferentConfigurations) {
  const std::uint16_t port = free_port();
  const Child zero = joins({.rank = 0, .world_size = 3, .master_port = port});
  const Child one = joins({.rank = 1, .world_size = 3, .master_port = port});
  const Child two = joins({.rank = 2, .world_size = 3, .master_port = port}, "a=1\nb=3\n");
  for (const Child& child : {zero, one, two}) {
    EXPECT_EQ(finish(child).substr(0, 63),
              "2: rank 2 differs from rank 0: rank 2 has b=3, rank 0 has b=2; ");
  }
}

TEST(DistGroup, NamesAllThatDiffer) {
  const std::uint16_t port = free_port();
  const Child zero = joins({.rank = 0, .world_size = 3, .master_port = port});
  const Child one = joins({.rank = 1, .world_size = 3, .master_port = port}, "a=1\n");
  const Child two = joins({.rank = 2, .world_size = 3, .master_port = port}, "");
  for (const Child& child : {zero, one, two}) {
    EXPECT_EQ(finish(child).substr(0, 73),
              "2: ranks 1 and 2 differ from rank 0: rank 1 has nothing, rank 0 has b=2; ");
  }
}

TEST(DistGroup, RefusesDifferentWorldSizes) {
  const std::uint16_t port = free_port();
  const Child zero = joins({.rank = 0, .world_size = 2, .master_port = port});
  const Child one = joins({.rank = 1, .world_size = 3, .master_port = port});
  for (const Child& child : {zero, one}) {
    EXPECT_EQ(finish(child).substr(0, 80),
              "2: rank 1 differs from rank 0: rank 1 has world size=3, rank 0 has world size=2;");
  }
}

// As when a host starts its ranks again while rank 0's host is still about to leave.
TEST(DistGroup, WaitsForTheServerOfThisAttempt) {
  const std::uint16_t port = free_port();
  const Child one = joins({.rank = 1, .world_size = 2, .master_port = port, .prefix = "1/"});
  {
    const StoreServer old(port);
    TcpStore store("127.0.0.1", port, Milliseconds{5000}, "1/");
    EXPECT_TRUE(store.get("join/1", Milliseconds{5000}));
  }
  const Child zero = joins({.rank = 0, .world_size = 2, .master_port = port, .prefix = "1/"});
  EXPECT_EQ(finish(zero), "met");
  EXPECT_EQ(finish(one), "met");
}

TEST(DistGroup, RefusesATakenPort) {
  const std::uint16_t port = free_port();
  const Socket taken = listen_on(port);
  const std::string result = finish(joins({.rank = 0, .world_size = 1, .master_port = port}));
  EXPECT_EQ(result.substr(0, 24), "2: cannot listen on port");
}

// The children are forked before the server's thread exists: it may hold a lock of malloc's.
TEST(DistGroup, KeepsGroupsOfOneServerApart) {
  const std::uint16_t port = free_port();
  std::vector<Child> children;
  for (const char* run : {"run-a/", "run-b/"}) {
    for (int r = 0; r < 2; ++r) {
      children.push_back(
          joins({.rank = r, .world_size = 2, .master_port = port, .serve = false, .prefix = run}));
    }
  }
  const StoreServer server(port);
  for (const Child& child : children) EXPECT_EQ(finish(child), "met");
}

}  // namespace
}  // namespace carousel::comm
