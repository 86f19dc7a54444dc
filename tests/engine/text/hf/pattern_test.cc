#include "engine/text/hf/pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/time/clock.h"

namespace nsa::hf {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::Status FindIn(const Pattern& pattern, const std::string& text, MatchState* state,
                    std::vector<std::string>* found) {
  return pattern.ForEachMatch(text, state, [&](TextRange match) {
    found->push_back(text.substr(match.begin, match.end - match.begin));
    return absl::OkStatus();
  });
}

std::vector<std::string> Find(const std::string& pattern, const std::string& text) {
  MatchState state(absl::InfiniteFuture());
  std::vector<std::string> found;
  const absl::Status status = FindIn(*Pattern::Compile(pattern), text, &state, &found);
  EXPECT_TRUE(status.ok()) << status;
  return found;
}

TEST(PatternTest, MatchesAcrossTheText) {
  EXPECT_THAT(Find("\\p{L}+", "ab 1 \xC3\xA9\xE4\xB8\xAD"),
              ElementsAre("ab", "\xC3\xA9\xE4\xB8\xAD"));
  EXPECT_THAT(Find("(?i:'s|'ll)", "'S'lL's"), ElementsAre("'S", "'lL", "'s"));
  EXPECT_THAT(Find("\\s+(?!\\S)|\\s+", "a   b  "), ElementsAre("  ", " ", "  "));
  EXPECT_THAT(Find("x$", "x\nx"), ElementsAre("x", "x"));  // a line's end, as in Ruby
  EXPECT_THAT(Find("q", ""), ElementsAre());
}

TEST(PatternTest, EmptyMatchesMoveOn) {
  EXPECT_THAT(Find("a*", "baac"), ElementsAre("", "aa", ""));
  EXPECT_THAT(Find("(?=\\p{Lu})", "aB\xC3\x89"), ElementsAre("", ""));
}

// Longer gaps than one search looks at, with code points of several bytes at the seams.
TEST(PatternTest, RareMatchesAreFound) {
  for (int gap = 200; gap < 600; ++gap) {
    std::string text;
    while (static_cast<int>(text.size()) < gap) text += "\xE4\xB8\xAD";
    EXPECT_THAT(Find("[0-9]", text + "7" + text + "8"), ElementsAre("7", "8")) << gap;
  }
}

TEST(PatternTest, TextThatTakesTooLongIsRefused) {
  std::vector<std::string> matches;
  // Every place of a long run of spaces looks at the rest of the run.
  const Pattern quadratic = *Pattern::Compile("\\s+$");
  MatchState overdue(absl::Now() + absl::Milliseconds(20));
  const absl::Time start = absl::Now();
  const absl::Status late =
      FindIn(quadratic, std::string(4'000'000, ' ') + "x", &overdue, &matches);
  EXPECT_EQ(late.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(late.message()), HasSubstr("too many steps"));
  EXPECT_LT(absl::Now() - start, absl::Minutes(2));  // to the end it would take hours

  const Pattern exponential = *Pattern::Compile("^(a+)+$");
  MatchState state(absl::InfiniteFuture());
  EXPECT_EQ(FindIn(exponential, std::string(60, 'a') + "b", &state, &matches).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(PatternTest, PatternsThatAreNoneAreNamed) {
  const auto refused = [](const std::string& pattern, const std::string& words) {
    const absl::Status status = Pattern::Compile(pattern).status();
    EXPECT_THAT(std::string(status.message()), HasSubstr(words)) << pattern.substr(0, 20);
  };
  refused("(", "not valid: missing closing parenthesis");
  refused("\\p{Nowhere}", "not valid: unknown property");
  refused("a{9,1}", "not valid");
  refused("\\w", "'\\w' is not supported");
  refused(std::string(70'000, 'x'), "70000 bytes; allowed: 65536");
  refused(std::string(100, '(') + std::string(100, ')'), "nested");
}

TEST(PatternTest, TheFirstErrorStops) {
  MatchState state(absl::InfiniteFuture());
  int num_matches = 0;
  const absl::Status status = Pattern::Compile("a")->ForEachMatch("aa", &state, [&](TextRange) {
    ++num_matches;
    return absl::InternalError("no");
  });
  EXPECT_EQ(status.message(), "no");
  EXPECT_EQ(num_matches, 1);
}

TEST(PatternTest, Literals) {
  MatchState state(absl::InfiniteFuture());
  std::vector<std::string> matches;
  ASSERT_TRUE(FindIn(*Pattern::CompileLiteral("a.("), "axa.(a.(", &state, &matches).ok());
  EXPECT_EQ(matches.size(), 2u);
}

}  // namespace
}  // namespace nsa::hf
