#include "core/base/parallel.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>

namespace carousel {
namespace {

// OpenMP gives a parallel region inside another one thread, whatever it asks for.
TEST(Parallel, AllPartsAreDoneOnFewerThreadsThanAskedFor) {
  std::array<std::atomic<int>, 5> calls{};
  detail::run_on_threads(2, [&](int) {
    detail::run_on_threads(5, [&](int part) { ++calls.at(static_cast<std::size_t>(part)); });
  });
  for (const auto& count : calls) EXPECT_EQ(count, 2);
}

}  // namespace
}  // namespace carousel
