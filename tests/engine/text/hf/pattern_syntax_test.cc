#include "engine/text/hf/pattern_syntax.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nsa::hf {
namespace {

using testing::HasSubstr;

TEST(PatternSyntaxTest, WhatMeansTheSameStays) {
  for (const char* pattern :
       {"", "a|b", "(?i:'s|'t)", "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+", "\\p{N}{1,3}", "x{2}", "x{2,}",
        "[a-z\\-_.]", "(?!x)(?=y)(?<=z)(?<!w)(?>v)(u)", "^.$", "\\[\\]\\{", "a*+b?+c++", "[-a]",
        "[\xE4\xB8\x80-\xE9\xBE\xA5]+"}) {
    EXPECT_EQ(*TranslatePattern(pattern), pattern);
  }
}

TEST(PatternSyntaxTest, WhatMeansSomethingElseIsRewritten) {
  EXPECT_EQ(*TranslatePattern("\\p{^Lu}\\P{^Lu}\\P{Lu}"), "\\P{Lu}\\p{Lu}\\P{Lu}");
  EXPECT_EQ(*TranslatePattern("\\p{Han}"), "\\p{sc:Han}");
  EXPECT_EQ(*TranslatePattern("\\d\\D"), "\\p{Nd}\\P{Nd}");
  EXPECT_EQ(*TranslatePattern("\\v"), "\\x0b");
  EXPECT_EQ(*TranslatePattern("\\x41\\x{1F600}\\u00e9"), "\\x{41}\\x{1F600}\\x{00e9}");
  EXPECT_EQ(*TranslatePattern("x{,3}"), "x{0,3}");
  EXPECT_EQ(*TranslatePattern("{a}{"), "\\{a}\\{");
  // U+180E is a space to PCRE2's \s alone.
  EXPECT_THAT(*TranslatePattern("\\s"), testing::Not(HasSubstr("180")));
  EXPECT_THAT(*TranslatePattern("\\S"), testing::StartsWith("[^"));
  EXPECT_THAT(*TranslatePattern("[^\\s\\p{L}]"), testing::EndsWith("\\x{3000}\\p{L}]"));
}

TEST(PatternSyntaxTest, WhatDiffersIsNamed) {
  struct Case {
    const char* pattern;
    const char* named;
  };
  for (const Case& refused :
       {Case{"x\\w", "\\w"},    {"\\b", "\\b"},      {"\\h", "\\h"},        {"\\R", "\\R"},
        {"(a)\\1", "\\1"},      {"\\0", "\\0"},      {"\\G", "\\G"},        {"\\pL", "\\pL"},
        {"\\xE9", "\\xE9"},     {"\\x4", "\\x4"},    {"\\u12", "\\u12"},    {"[x[:alpha:]]", "[:"},
        {"[x&&y]", "&&"},       {"[]x]", "[]"},      {"(?m)x", "(?m)"},     {"(?<name>x)", "(?<n"},
        {"(?#x)", "(?#x"},      {"(*FAIL)", "(*FA"}, {"x{1,3}+", "{1,3}+"}, {"x{2}?", "{2}?"},
        {"\\p{L-}", "\\p{L-}"}, {"[\\b]", "\\b"},    {"[\\A]", "\\A"}}) {
    const absl::Status status = TranslatePattern(refused.pattern).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << refused.pattern;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string("'") + refused.named + "'"));
  }
  for (const char* pattern : {"[\\s-a]", "[a-\\s]", "[\\p{L}-x]"}) {
    EXPECT_EQ(TranslatePattern(pattern).status().code(), absl::StatusCode::kUnimplemented);
  }
  EXPECT_TRUE(TranslatePattern("[\\s-]").ok());
  EXPECT_TRUE(TranslatePattern("[-\\s]").ok());
  for (const char* pattern : {"[a", "[", "[^", "x\\", "[\\"}) {
    EXPECT_EQ(TranslatePattern(pattern).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(PatternSyntaxTest, LiteralsAreQuoted) {
  EXPECT_EQ(LiteralPattern("a.b [\xE2\x96\x81]"), "a\\.b \\[\xE2\x96\x81\\]");
}

}  // namespace
}  // namespace nsa::hf
