#include "core/comm/communicator.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <csignal>

#include "core/comm/backends.h"
#include "tests/support/errors.h"
#include "tests/support/ranks.h"

namespace carousel::comm {
namespace {

using testing::expect_error;
using testing::in_processes;
using testing::in_threads;

// Ranks report in strings: empty is good.
#define RANK_EXPECT(condition)           \
  do {                                   \
    if (!(condition)) return #condition; \
  } while (false)

template <class T>
Tensor filled(std::int64_t n, int rank, double scale) {
  std::vector<T> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<T>(std::sin(static_cast<double>(i) + 1.7 * rank) * scale);
  }
  return Tensor::from<T>(values, {n});
}

template <class T>
std::string sums_agree(Communicator& c, std::int64_t pieces, double tolerance) {
  const int world = c.world_size();
  const std::int64_t n = pieces * world;
  std::vector<double> expected(static_cast<std::size_t>(n));
  for (int r = 0; r < world; ++r) {
    const auto values = filled<T>(n, r, 3.0).template to_vector<T>();
    for (std::size_t i = 0; i < values.size(); ++i) expected[i] += static_cast<double>(values[i]);
  }
  const auto right = [&](const Tensor& t, std::int64_t begin, std::int64_t end) {
    const auto values = t.to_vector<T>();
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      if (!(std::abs(static_cast<double>(values[i]) - expected[i]) <= tolerance)) return false;
    }
    return true;
  };
  for (const Sum order : {Sum::kFast, Sum::kTree}) {
    const Tensor all = filled<T>(n, c.rank(), 3.0);
    const Tensor mine = filled<T>(n, c.rank(), 3.0);
    const Work first = c.all_reduce(all, "all", order);
    const Work second = c.reduce_scatter(mine, "mine", order);
    second.wait();
    first.wait();
    RANK_EXPECT(right(all, 0, n));
    RANK_EXPECT(right(mine, pieces * c.rank(), pieces * (c.rank() + 1)));
    c.all_gather(mine, "mine").wait();
    RANK_EXPECT(right(mine, 0, n));
    if (order == Sum::kTree) RANK_EXPECT(mine.to_vector<T>() == all.to_vector<T>());
  }
  return "";
}

std::string everything_works(Communicator& c) {
  for (const std::int64_t pieces : {1, 3, 1000, 70001}) {
    if (auto e = sums_agree<float>(c, pieces, 1e-5); !e.empty()) return e;
    if (auto e = sums_agree<double>(c, pieces, 1e-13); !e.empty()) return e;
  }
  // One element over an odd number of pieces has only the fast sum.
  const Tensor odd = filled<double>(7, 0, 1.0);
  c.all_reduce(odd, "odd").wait();
  RANK_EXPECT(std::abs(odd.to_vector<double>()[6] - c.world_size() * std::sin(6.0)) < 1e-12);

  for (int root = 0; root < c.world_size(); ++root) {
    const std::vector<std::uint8_t> sent{1, 2, static_cast<std::uint8_t>(root)};
    const Tensor bytes =
        c.rank() == root ? Tensor::from<std::uint8_t>(sent, {3}) : Tensor::zeros({3}, DType::kU8);
    c.broadcast(bytes, root, "bytes").wait();
    RANK_EXPECT(bytes.to_vector<std::uint8_t>() == sent);
  }
  std::vector<double> values{1.0, static_cast<double>(c.rank())};
  c.sum_on_host(values, "values");
  RANK_EXPECT(values[0] == c.world_size());
  RANK_EXPECT(values[1] == c.world_size() * (c.world_size() - 1) / 2);

  c.barrier("barrier");
  const auto words = c.gather("rank " + std::to_string(c.rank()), "words");
  RANK_EXPECT(std::ssize(words) == c.world_size());
  RANK_EXPECT(words.back() == "rank " + std::to_string(c.world_size() - 1));
  c.check();
  return "";
}

// Many collectives in flight, waited for in no particular order.
std::string queues_in_order(Communicator& c) {
  std::vector<Tensor> tensors;
  std::vector<Work> works;
  for (int i = 0; i < 40; ++i) {
    tensors.push_back(Tensor::from<float>(std::vector<float>(64, static_cast<float>(i)), {64}));
    works.push_back(c.all_reduce(tensors.back(), "piece"));
  }
  for (int i = 39; i >= 0; --i) {
    const auto at = static_cast<std::size_t>(i);
    works[at].wait();
    RANK_EXPECT(tensors[at].to_vector<float>()[63] == static_cast<float>(i * c.world_size()));
  }
  return "";
}

void expect_good(const std::vector<std::string>& results) {
  for (std::size_t r = 0; r < results.size(); ++r) EXPECT_EQ(results[r], "") << "rank " << r;
}

TEST(DistThreads, CollectivesAreRight) {
  for (const int world : {1, 2, 4}) expect_good(in_threads(world, everything_works));
}

TEST(DistThreads, CollectivesQueueInOrder) { expect_good(in_threads(4, queues_in_order)); }

TEST(DistGloo, CollectivesAreRight) {
  for (const int world : {1, 2, 4}) expect_good(in_processes(world, everything_works));
}

TEST(DistGloo, CollectivesQueueInOrder) { expect_good(in_processes(4, queues_in_order)); }

// The same leaves, spread over more ranks or summed locally first, give the same bits.
TEST(DistThreads, TreeSumsDoNotDependOnTheNumberOfRanks) {
  const auto leaf = [](int i) { return filled<float>(4 * 33, i, 1.0 + i); };
  const auto sum_of = [&](int world) {
    std::string bits;
    const int each = 4 / world;
    const auto results = in_threads(world, [&](Communicator& c) -> std::string {
      std::vector<std::vector<float>> parts;
      for (int i = 0; i < each; ++i) {
        parts.push_back(leaf(c.rank() * each + i).to_vector<float>());
      }
      for (std::size_t stride = 1; stride < parts.size(); stride *= 2) {
        for (std::size_t i = 0; i + stride < parts.size(); i += 2 * stride) {
          for (std::size_t e = 0; e < parts[i].size(); ++e) parts[i][e] += parts[i + stride][e];
        }
      }
      const Tensor t = Tensor::from<float>(parts[0], {4 * 33});
      c.all_reduce(t, "tree", Sum::kTree).wait();
      return {static_cast<const char*>(t.raw()), t.bytes()};
    });
    for (const std::string& r : results) EXPECT_EQ(r, results[0]);
    return results[0];
  };
  const std::string one = sum_of(1);
  EXPECT_EQ(one.size(), 4u * 33 * 4);
  EXPECT_EQ(sum_of(2), one);
  EXPECT_EQ(sum_of(4), one);
}

TEST(DistThreads, RefusesUnsoundArguments) {
  const auto results = in_threads(3, [](Communicator& c) -> std::string {
    const Tensor four = Tensor::zeros({4}, DType::kF32);
    const Tensor six = Tensor::zeros({6}, DType::kF32);
    expect_error<InternalError>([&] { c.reduce_scatter(four, "four"); }, {"four", "3 equal"});
    expect_error<InternalError>([&] { c.all_reduce(six, "six", Sum::kTree); }, {"six", "3 ranks"});
    expect_error<InternalError>([&] { c.all_reduce(Tensor::zeros({3}, DType::kI32), "ids"); },
                                {"ids", "i32"});
    expect_error<InternalError>([&] { c.broadcast(four, 3, "root"); }, {"root 3"});
    expect_error<InternalError>([&] { c.all_gather({}, "none"); }, {"none", "undefined"});
    return "";
  });
  expect_good(results);
}

TEST(DistThreads, AnAbortNamesTheRankAndItsReason) {
  const auto results = in_threads(3, [](Communicator& c) -> std::string {
    if (c.rank() == 1) {
      c.abort("the disk is full");
      return "aborted";
    }
    c.all_reduce(Tensor::zeros({8}, DType::kF32), "gradients").wait();
    return "no error";
  });
  EXPECT_EQ(results[1], "aborted");
  for (const int r : {0, 2}) {
    const std::string& text = results[static_cast<std::size_t>(r)];
    EXPECT_NE(text.find("rank 1 stopped: the disk is full"), std::string::npos) << text;
    EXPECT_NE(text.find("all_reduce 'gradients' (collective 1)"), std::string::npos) << text;
  }
}

TEST(DistThreads, ATimeOutNamesTheRankThatIsBehind) {
  std::atomic<bool> over = false;
  const auto results = in_threads(
      2,
      [&](Communicator& c) -> std::string {
        c.barrier("start");
        if (c.rank() == 1) {
          while (!over) std::this_thread::sleep_for(Milliseconds{10});
          return "late";
        }
        try {
          c.all_reduce(Tensor::zeros({8}, DType::kF32), "gradients").wait();
        } catch (const PeerError& e) {
          over = true;
          return e.what();
        }
        return "no error";
      },
      300);
  EXPECT_NE(results[0].find("rank 1 hangs after gather 'start' (collective 1)"), std::string::npos)
      << results[0];
  EXPECT_NE(results[0].find("300 ms"), std::string::npos) << results[0];
}

TEST(DistGloo, AKilledRankIsNamed) {
  const auto results = in_processes(3, [](Communicator& c) -> std::string {
    const Tensor t = Tensor::zeros({8}, DType::kF32);
    c.all_reduce(t, "first").wait();
    if (c.rank() == 2) ::raise(SIGKILL);
    c.all_reduce(t, "second").wait();
    c.all_reduce(t, "third").wait();
    return "no error";
  });
  EXPECT_EQ(results[2], "died");
  for (const int r : {0, 1}) {
    const std::string& text = results[static_cast<std::size_t>(r)];
    EXPECT_NE(text.find("rank 2 (process "), std::string::npos) << text;
    EXPECT_NE(text.find("died"), std::string::npos) << text;
    EXPECT_NE(text.find("all_reduce 'second'"), std::string::npos) << text;
  }
}

// Although its process, and with it its connections, stay for a while.
TEST(DistGloo, AnAbortEndsTheOthers) {
  const auto results = in_processes(3, [](Communicator& c) -> std::string {
    const auto begin = Clock::now();
    const Tensor t = Tensor::zeros({8}, DType::kF32);
    c.all_reduce(t, "first").wait();
    if (c.rank() == 1) {
      c.abort("the disk is full");
      std::this_thread::sleep_for(Milliseconds{3000});
      return "aborted";
    }
    try {
      c.all_reduce(t, "second").wait();
    } catch (const PeerError& e) {
      return Clock::now() - begin < Milliseconds{2500} ? e.what() : "late";
    }
    return "no error";
  });
  EXPECT_EQ(results[1], "aborted");
  for (const int r : {0, 2}) {
    const std::string& text = results[static_cast<std::size_t>(r)];
    EXPECT_NE(text.find("rank 1 stopped: the disk is full; interrupted"), std::string::npos)
        << text;
    EXPECT_NE(text.find("all_reduce 'second' (collective 3)"), std::string::npos) << text;
  }
}

TEST(DistGloo, AStoppedRankIsNamed) {
  const auto begin = Clock::now();
  const auto results = in_processes(
      2,
      [](Communicator& c) -> std::string {
        const Tensor t = Tensor::zeros({8}, DType::kF32);
        c.all_reduce(t, "first").wait();
        const auto ids = c.gather(std::to_string(::getpid()), "ids");
        if (c.rank() == 1) ::raise(SIGSTOP);
        try {
          c.all_reduce(t, "second").wait();
        } catch (const PeerError& e) {
          ::kill(static_cast<pid_t>(std::stol(ids[1])), SIGKILL);
          return e.what();
        }
        return "no error";
      },
      500);
  EXPECT_NE(results[0].find("rank 1 does not respond"), std::string::npos) << results[0];
  EXPECT_NE(results[0].find("all_reduce 'second' (collective 4)"), std::string::npos) << results[0];
  EXPECT_EQ(results[1], "died");
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(15));
}

}  // namespace
}  // namespace carousel::comm
