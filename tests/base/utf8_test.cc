#include "base/utf8.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace nsa {
namespace {

using namespace std::string_literals;

const std::string kBad(kReplacementCharacter);

std::string Sanitized(const std::string& bytes) {
  Utf8Stream stream;
  std::string text = stream.Push(bytes);
  return text + stream.Finish();
}

TEST(Utf8Test, AcceptsTheEdgesOfEveryLength) {
  for (const std::string& text :
       {""s, "\0"s, "\x7F"s, "\xC2\x80"s, "\xDF\xBF"s, "\xE0\xA0\x80"s, "\xED\x9F\xBF"s,
        "\xEE\x80\x80"s, "\xEF\xBF\xBF"s, "\xF0\x90\x80\x80"s, "\xF4\x8F\xBF\xBF"s}) {
    EXPECT_TRUE(IsValidUtf8(text)) << testing::PrintToString(text);
    EXPECT_EQ(Sanitized(text), text);
  }
}

TEST(Utf8Test, RefusesWhatLooksAlmostRight) {
  for (const std::string& text :
       {"\x80"s,              // a continuation alone
        "\xC0\x80"s,          // overlong NUL
        "\xC1\xBF"s,          // overlong DEL
        "\xE0\x9F\xBF"s,      // overlong U+07FF
        "\xF0\x8F\xBF\xBF"s,  // overlong U+FFFF
        "\xED\xA0\x80"s,      // a surrogate
        "\xED\xBF\xBF"s,      // the last surrogate
        "\xF4\x90\x80\x80"s,  // U+110000
        "\xF5\x80\x80\x80"s, "\xFF"s, "\xE2\x82"s, "ab\xC3"s, "\xC3(\xA9"s}) {
    EXPECT_FALSE(IsValidUtf8(text)) << testing::PrintToString(text);
    EXPECT_TRUE(IsValidUtf8(Sanitized(text)));
    EXPECT_NE(Sanitized(text), text);
  }
}

// The cases of the Unicode standard's table of recommended replacements (chapter 3.9).
TEST(Utf8Test, ReplacesMaximalSubparts) {
  EXPECT_EQ(Sanitized("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"),
            kBad + kBad + kBad + kBad + kBad + kBad + kBad + kBad + "A");
  EXPECT_EQ(Sanitized("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"),
            kBad + kBad + kBad + kBad + kBad + kBad + kBad + kBad + "A");
  EXPECT_EQ(Sanitized("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), kBad + kBad + kBad + kBad + "A");
}

TEST(Utf8Test, StreamHoldsAnIncompleteCodePointBack) {
  Utf8Stream stream;
  EXPECT_EQ(stream.Push("a\xF0\x9F"), "a");
  EXPECT_TRUE(stream.has_pending());
  EXPECT_EQ(stream.Push("\xA6"), "");
  EXPECT_EQ(stream.Push("\x8A!"), "\xF0\x9F\xA6\x8A!");
  EXPECT_FALSE(stream.has_pending());
  EXPECT_EQ(stream.Push("\xE2\x82"), "");
  EXPECT_EQ(stream.Finish(), kBad);
  EXPECT_EQ(stream.Finish(), "");
}

TEST(Utf8Test, AnySplitGivesTheSameText) {
  std::mt19937 random(1);
  // Bytes that start, continue and break sequences, so that every state is met.
  const std::string alphabet = "a\x80\x9F\xA0\xBF\xC2\xE0\xE2\xED\xF0\xF4\xFF";
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    for (int i = 0; i < 12; ++i) bytes += alphabet[random() % alphabet.size()];
    Utf8Stream stream;
    std::string text;
    for (size_t begin = 0; begin < bytes.size();) {
      const size_t num_bytes = 1 + random() % 4;
      text += stream.Push(std::string_view(bytes).substr(begin, num_bytes));
      EXPECT_TRUE(IsValidUtf8(text));
      begin += num_bytes;
    }
    text += stream.Finish();
    EXPECT_EQ(text, Sanitized(bytes)) << testing::PrintToString(bytes);
    EXPECT_TRUE(IsValidUtf8(text));
  }
}

TEST(Utf8Test, ClipKeepsWholeCodePoints) {
  EXPECT_EQ(ClipUtf8("h\xC3\xA9llo", 2), "h");
  EXPECT_EQ(ClipUtf8("h\xC3\xA9llo", 3), "h\xC3\xA9");
  EXPECT_EQ(ClipUtf8("hello", 100), "hello");
  EXPECT_EQ(ClipUtf8("hello", 0), "");
  EXPECT_EQ(ClipUtf8("\xFFok", 4), kBad + "o");
}

}  // namespace
}  // namespace nsa
