#include "core/comm/abandonable.h"

#include <gtest/gtest.h>

#include <memory>

#include "tests/support/errors.h"

namespace carousel::comm {
namespace {

std::string no_trouble() { return ""; }

TEST(CallAbandonably, GivesWhatTheCallGives) {
  EXPECT_EQ(call_abandonably([] { return 5; }, no_trouble), 5);
  const auto fails = []() -> int { throw DataError("a bad thing"); };
  testing::expect_error<DataError>([&] { call_abandonably(fails, no_trouble); }, {"a bad thing"});
}

TEST(CallAbandonably, LeavesACallThatHangs) {
  const auto end = std::make_shared<std::promise<void>>();
  const auto ended = std::make_shared<std::promise<void>>();
  int asked = 0;
  const auto begin = Clock::now();
  testing::expect_error<PeerError>(
      [&] {
        call_abandonably(
            [end, ended] {
              end->get_future().wait();
              ended->set_value();
            },
            [&] { return ++asked < 3 ? "" : "rank 1 died"; });
      },
      {"rank 1 died"});
  EXPECT_EQ(asked, 3);
  EXPECT_LT(Clock::now() - begin, Milliseconds{5000});
  end->set_value();  // what it owns is still there
  EXPECT_EQ(ended->get_future().wait_for(Milliseconds{5000}), std::future_status::ready);
}

}  // namespace
}  // namespace carousel::comm
