#include "data/base64.h"

#include <gtest/gtest.h>

namespace carousel {
namespace {

// Test vectors of RFC 4648, section 10.
TEST(Base64, MatchesTheRfc) {
  const char* pairs[][2] = {{"", ""},
                            {"f", "Zg=="},
                            {"fo", "Zm8="},
                            {"foo", "Zm9v"},
                            {"foob", "Zm9vYg=="},
                            {"fooba", "Zm9vYmE="},
                            {"foobar", "Zm9vYmFy"}};
  for (const auto& [bytes, text] : pairs) {
    EXPECT_EQ(base64_encode(bytes), text);
    EXPECT_EQ(base64_decode(text), bytes);
  }
}

TEST(Base64, AllBytesRoundTrip) {
  std::string bytes;
  for (int length = 0; length < 600; ++length) {
    EXPECT_EQ(base64_decode(base64_encode(bytes)), bytes);
    bytes.push_back(static_cast<char>(length * 37));
  }
}

TEST(Base64, RefusesWhatIsNotCanonical) {
  for (const char* text : {"Z", "Zg", "Zg=", "Zg==\n", "Zm9 ", "Zm\xC3\xA9",
                           "Zh==", "Zm9=", "====", "=m9v", "Z===", "Zg==Zg=="}) {
    EXPECT_EQ(base64_decode(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace carousel
