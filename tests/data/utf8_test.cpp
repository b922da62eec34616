#include "data/utf8.h"

#include <gtest/gtest.h>

namespace carousel {
namespace {

TEST(Utf8, EveryCodePointRoundTrips) {
  for (char32_t c = 0; c <= kMaxCodePoint; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    const CodePoint back = decode_utf8(text, 0);
    ASSERT_EQ(back.value, c);
    ASSERT_EQ(static_cast<std::size_t>(back.length), text.size());
  }
}

TEST(Utf8, RefusesMalformedSequences) {
  for (const std::string text :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF", "\xED\xA0\x80",
        "\xED\xBF\xBF", "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80", "\xFF", "\xC3", "\xC3(", "\xE2\x82", "\xE2(\x80", "\xF0\x9F\x98",
        "\xF0\x9F\x98("}) {
    EXPECT_EQ(decode_utf8(text, 0).length, 0) << ::testing::PrintToString(text);
  }
}

TEST(Utf8, UnfinishedCountsBytesThatMoreMayComplete) {
  EXPECT_EQ(unfinished_utf8(""), 0u);
  EXPECT_EQ(unfinished_utf8("abc"), 0u);
  EXPECT_EQ(unfinished_utf8("a\xC3\xA9"), 0u);
  EXPECT_EQ(unfinished_utf8("a\xC3"), 1u);
  EXPECT_EQ(unfinished_utf8("\xE2\x82"), 2u);
  EXPECT_EQ(unfinished_utf8("\xE0\xA0"), 2u);
  EXPECT_EQ(unfinished_utf8("\xED\x9F"), 2u);
  EXPECT_EQ(unfinished_utf8("\xF4\x8F\xBF"), 3u);
  EXPECT_EQ(unfinished_utf8("\xF0\x9F\x98\x80"), 0u);
  // These can never become a character.
  EXPECT_EQ(unfinished_utf8("\xFF"), 0u);
  EXPECT_EQ(unfinished_utf8("\xE0\x80"), 0u);
  EXPECT_EQ(unfinished_utf8("\xED\xA0"), 0u);
  EXPECT_EQ(unfinished_utf8("\x80\x80\x80"), 0u);
}

TEST(Utf8, NamesCharactersForMessages) {
  EXPECT_EQ(name_of_character(U'é'), "'é' (U+00E9)");
  EXPECT_EQ(name_of_character(U'\n'), "U+000A");
  EXPECT_EQ(name_of_character(0x1F600), "'😀' (U+1F600)");
}

}  // namespace
}  // namespace carousel
