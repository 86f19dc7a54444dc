#include "engine/constraint/regex.h"

#include <gtest/gtest.h>

#include "engine/constraint/automaton.h"

namespace nsa::constraint {
namespace {

bool Matches(const std::string& source, const std::string& text,
             RegexMatch match = RegexMatch::kWhole) {
  const auto regex = ParseRegex(source, 20);
  EXPECT_TRUE(regex.ok()) << regex.status();
  if (!regex.ok()) return false;
  Grammar grammar(100'000);
  const Rule root = grammar.rule(grammar.AddRule());
  AddRegex(&grammar, *regex, match, TextEncoding::kPlain, root.start, root.accept);
  EXPECT_TRUE(grammar.Finish(0).ok());
  Automaton automaton(&grammar, {});
  int32_t state = automaton.start();
  for (const char byte : text) state = automaton.Step(state, static_cast<uint8_t>(byte));
  return automaton.is_accepting(state);
}

std::string Refusal(const std::string& source) {
  return std::string(ParseRegex(source, 20).status().message());
}

TEST(RegexTest, Repeats) {
  EXPECT_TRUE(Matches("a{2,3}", "aa"));
  EXPECT_TRUE(Matches("a{2,3}", "aaa"));
  EXPECT_FALSE(Matches("a{2,3}", "a"));
  EXPECT_FALSE(Matches("a{2,3}", "aaaa"));
  EXPECT_TRUE(Matches("(?:ab){2,}", "ababab"));
  EXPECT_FALSE(Matches("(?:ab){2}", "ababab"));
  EXPECT_TRUE(Matches("a{0}b", "b"));
  EXPECT_TRUE(Matches("(a*)*b??", "aab"));
  EXPECT_TRUE(Matches("(a|b*)+", ""));
  EXPECT_FALSE(Matches("a*b*", "aba"));
}

TEST(RegexTest, Classes) {
  EXPECT_TRUE(Matches("[a\\-z\\]]+", "a-z]"));
  EXPECT_FALSE(Matches("[a\\-z]", "b"));
  EXPECT_TRUE(Matches("[^\\d\\s]", "\xC3\xA9"));
  EXPECT_FALSE(Matches("[^\\d\\s]", "\xC2\xA0"));  // a no-break space is a space
  EXPECT_TRUE(Matches("[-a]", "-"));
  EXPECT_TRUE(Matches("[a-]", "-"));
  EXPECT_TRUE(Matches("\\u00e9\\x41\\u{20AC}\\x{42}",
                      "\xC3\xA9"
                      "A\xE2\x82\xAC"
                      "B"));
  EXPECT_FALSE(Matches(".", "\n"));
  EXPECT_FALSE(Matches(".", "\xE2\x80\xA8"));
  EXPECT_TRUE(Matches(".", "\xF0\x9F\x98\x80"));
  EXPECT_TRUE(Matches("\\.\\/\\$", "./$"));
}

TEST(RegexTest, AnchorsHoldAtTheirEnd) {
  EXPECT_TRUE(Matches("^ab$", "ab"));
  EXPECT_TRUE(Matches("b", "abc", RegexMatch::kSearch));
  EXPECT_TRUE(Matches("^a|c$", "axx", RegexMatch::kSearch));
  EXPECT_TRUE(Matches("^a|c$", "xxc", RegexMatch::kSearch));
  EXPECT_FALSE(Matches("^a|c$", "xax", RegexMatch::kSearch));
  EXPECT_FALSE(Matches("^ab$", "abc", RegexMatch::kSearch));
  EXPECT_TRUE(Matches("b", "\n\xE2\x80\xA8 b\n", RegexMatch::kSearch));
}

TEST(RegexTest, RefusesByName) {
  EXPECT_EQ(Refusal("ab(?=c)"), "regex, character 4: lookaround is not supported");
  EXPECT_NE(Refusal("(a)\\1").find("back references"), std::string::npos);
  EXPECT_NE(Refusal("\\bword").find("word boundaries"), std::string::npos);
  EXPECT_NE(Refusal("(?i)a").find("flags"), std::string::npos);
  EXPECT_NE(Refusal("(?<n>a)").find("named groups"), std::string::npos);
  EXPECT_NE(Refusal("(?<=a)b").find("lookaround"), std::string::npos);
  EXPECT_NE(Refusal("\\p{L}").find("'\\p'"), std::string::npos);
  EXPECT_NE(Refusal("a++").find("possessive"), std::string::npos);
  EXPECT_NE(Refusal("a**").find("quantifier of a quantifier"), std::string::npos);
  EXPECT_NE(Refusal("(a^b)").find("'^' after the start"), std::string::npos);
  EXPECT_NE(Refusal("a$b").find("'$' before the end"), std::string::npos);
  EXPECT_NE(Refusal("(a$)").find("'$' inside a group"), std::string::npos);
  EXPECT_NE(Refusal("\\ud83d").find("surrogates"), std::string::npos);
}

TEST(RegexTest, RefusesWhatIsCutOffOrReversed) {
  for (const char* source :
       {"(",     "(a",        "a)", "[",          "[a",    "[]",          "[^]",
        "[z-a]", "[\\d-z]",   "a{", "a{2",        "a{,2}", "a{3,2}",      "{2}",
        "*",     "|*",        "\\", "\\x4",       "\\u{}", "\\u{110000}", "[a\\",
        "\xFF",  "a{100001}", "(?", "[[:alpha:]]"}) {
    EXPECT_FALSE(ParseRegex(source, 20).ok()) << source;
  }
  EXPECT_FALSE(ParseRegex(std::string("a\0b", 3), 20).ok());
}

TEST(RegexTest, GroupsNestUpToTheLimit) {
  const auto nested = [](int depth) {
    return std::string(depth, '(') + "a" + std::string(depth, ')');
  };
  EXPECT_TRUE(ParseRegex(nested(20), 20).ok());
  EXPECT_NE(Refusal(nested(21)).find("the limit of 20"), std::string::npos);
}

}  // namespace
}  // namespace nsa::constraint
