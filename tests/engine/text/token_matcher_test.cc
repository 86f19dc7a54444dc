#include "engine/text/token_matcher.h"

#include <gtest/gtest.h>

namespace nsa {
namespace {

TEST(TokenMatcherTest, TheLongestTokenWins) {
  TokenMatcher matcher;
  EXPECT_TRUE(matcher.empty());
  matcher.Add("<a", 1);
  matcher.Add("<a b>", 2);
  matcher.Add("\xC3\xA9", 3);
  matcher.Add("", 4);
  EXPECT_FALSE(matcher.empty());
  EXPECT_EQ(matcher.LongestAt("<a b>x").token, 2);
  EXPECT_EQ(matcher.LongestAt("<a b>x").num_bytes, 5);
  EXPECT_EQ(matcher.LongestAt("<a b").token, 1);  // back to the one that ended
  EXPECT_EQ(matcher.LongestAt("<a b").num_bytes, 2);
  EXPECT_EQ(matcher.LongestAt("\xC3\xA9").token, 3);
  for (const char* text : {"", "<", "x<a", "\xC3"}) {
    EXPECT_EQ(matcher.LongestAt(text).token, -1) << text;
    EXPECT_EQ(matcher.LongestAt(text).num_bytes, 0) << text;
  }
}

TEST(TokenMatcherTest, ProperPrefixes) {
  TokenMatcher matcher;
  matcher.Add("<a", 1);
  matcher.Add("<a b>", 2);
  for (const char* text : {"<", "<a", "<a ", "<a b"}) EXPECT_TRUE(matcher.IsProperPrefix(text));
  for (const char* text : {"", "<a b>", "<b", "a"}) EXPECT_FALSE(matcher.IsProperPrefix(text));
}

}  // namespace
}  // namespace nsa
