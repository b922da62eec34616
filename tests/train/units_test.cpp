#include "train/units.h"

#include <gtest/gtest.h>

namespace carousel {
namespace {

TEST(Units, FourDigitsAndAPrefix) {
  EXPECT_EQ(with_unit(0.0, 1000.0, "FLOP"), "0 FLOP");
  EXPECT_EQ(with_unit(999.0, 1000.0, "FLOP"), "999 FLOP");
  EXPECT_EQ(with_unit(1000.0, 1000.0, "FLOP"), "1 kFLOP");
  EXPECT_EQ(with_unit(1234567.0, 1000.0, "FLOP"), "1.235 MFLOP");
  EXPECT_EQ(with_unit(2.5e21, 1000.0, "FLOP"), "2500 EFLOP");
  EXPECT_EQ(with_unit(703.0, 1000.0, ""), "703");
  EXPECT_EQ(with_unit(70300.0, 1000.0, ""), "70.3 k");
}

TEST(Units, BytesHaveBinaryPrefixes) {
  EXPECT_EQ(bytes_text(1023), "1023 B");
  EXPECT_EQ(bytes_text(1024), "1 KiB");
  EXPECT_EQ(bytes_text(21434368), "20.44 MiB");
  EXPECT_EQ(bytes_text(UINT64_MAX), "16 EiB");
}

}  // namespace
}  // namespace carousel
