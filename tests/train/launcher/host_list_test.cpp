#include "train/launcher/host_list.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/support/errors.h"

namespace carousel {
namespace {

using Hosts = std::vector<std::string>;
using testing::expect_error;

TEST(HostList, ExpandsRanges) {
  EXPECT_EQ(expand_host_list("login"), (Hosts{"login"}));
  EXPECT_EQ(expand_host_list("a,b.example.org"), (Hosts{"a", "b.example.org"}));
  EXPECT_EQ(expand_host_list("gpu[01-03,07],login-a"),
            (Hosts{"gpu01", "gpu02", "gpu03", "gpu07", "login-a"}));
  EXPECT_EQ(expand_host_list("n[9-11]"), (Hosts{"n9", "n10", "n11"}));
  EXPECT_EQ(expand_host_list("r[1-2]n[08-09]-ib"),
            (Hosts{"r1n08-ib", "r1n09-ib", "r2n08-ib", "r2n09-ib"}));
  EXPECT_EQ(expand_host_list("n[00000-65535]").size(), 65536u);
}

TEST(HostList, RefusesWhatIsNoList) {
  const auto refuse = [](const std::string& text, const std::string& part) {
    expect_error<UsageError>([&] { expand_host_list(text); }, {"is not a Slurm host list", part});
  };
  for (const char* text : {"", ",", "a,", "a,,b"}) refuse(text, "an empty name");
  for (const char* text : {"a[1", "a]1[", "a[[1]]", "a[1]]", "[", "]"}) refuse(text, "brackets");
  for (const char* text :
       {"a[]", "a[1,]", "a[x]", "a[1-]", "a[-1]", "a[--1]", "a[1-2-3]", "a[1234567890]"}) {
    refuse(text, "is no number");
  }
  refuse("a[3-1]", "runs backwards");
  refuse("a[0-99999]", "more than 65536 hosts");
  refuse("a[0-999][0-999][0-999]", "more than 65536 hosts");
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "[1]";
  refuse(deep, "too many brackets");
}

}  // namespace
}  // namespace carousel
