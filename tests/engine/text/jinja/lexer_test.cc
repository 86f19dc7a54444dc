#include "engine/text/jinja/lexer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace nsa::jinja {
namespace {

// The literal text of a template, tags as "*".
std::string Outline(const std::string& source) {
  const auto tokens = Tokenize(source);
  EXPECT_TRUE(tokens.ok()) << tokens.status();
  if (!tokens.ok()) return "";
  std::string outline;
  for (const Token& token : *tokens) {
    if (token.kind == TokenKind::kText) outline += token.text;
    if (token.kind == TokenKind::kExprEnd || token.kind == TokenKind::kBlockEnd) outline += '*';
  }
  return outline;
}

TEST(LexerTest, WhitespaceControl) {
  EXPECT_EQ(Outline("a {{ x }} b"), "a * b");
  EXPECT_EQ(Outline("a \n {{- x -}} \n b"), "a*b");
  EXPECT_EQ(Outline("a \n {%- if x -%} \n b"), "a*b");
  EXPECT_EQ(Outline("a {#- note -#} b"), "ab");
}

TEST(LexerTest, BlocksAloneOnALineLeaveNoTrace) {
  EXPECT_EQ(Outline("a\n  {% if x %}\nb"), "a\n*b");  // lstrip_blocks and trim_blocks
  EXPECT_EQ(Outline("  {% if x %}\nb"), "*b");        // at the start of the template
  EXPECT_EQ(Outline("a  {% if x %}\nb"), "a  *b");    // text stands before it
  EXPECT_EQ(Outline("{{ x }}  {% if x %}\n\nb"), "*  *\nb");
  EXPECT_EQ(Outline("a\n  {{ x }}\nb"), "a\n  *\nb");  // outputs keep both
  EXPECT_EQ(Outline("a\n  {%+ if x +%}\nb"), "a\n  *\nb");
  EXPECT_EQ(Outline("{% if x %}\n  {% if y %}\nb"), "**b");
  EXPECT_EQ(Outline("a\n  {# note #}\nb"), "a\nb");
}

TEST(LexerTest, OneFinalLineBreakIsDropped) {
  EXPECT_EQ(Outline("a\n"), "a");
  EXPECT_EQ(Outline("a\n\n"), "a\n");
  EXPECT_EQ(Outline("a\r\nb\r\n"), "a\nb");
}

TEST(LexerTest, TokensInsideATag) {
  const auto tokens = Tokenize("{{ name['k\\n'] // 12 != \"it's\" }}");
  ASSERT_TRUE(tokens.ok());
  std::vector<std::string> texts;
  for (const Token& token : *tokens) texts.push_back(token.text);
  EXPECT_EQ(texts, (std::vector<std::string>{"", "name", "[", "k\n", "]", "//", "12", "!=", "it's",
                                             "", ""}));
  EXPECT_EQ((*tokens)[6].number, 12);
}

TEST(LexerTest, LinesAreCounted) {
  const auto tokens = Tokenize("a\nb {{\n x }}");
  ASSERT_TRUE(tokens.ok());
  EXPECT_EQ((*tokens)[0].line, 1);
  EXPECT_EQ((*tokens)[1].line, 2);
  EXPECT_EQ((*tokens)[2].line, 3);
}

TEST(LexerTest, BracesThatOpenNothingAreText) {
  EXPECT_EQ(Outline("{ a } {"), "{ a } {");
  EXPECT_EQ(Outline(""), "");
}

TEST(LexerTest, ErrorsNameTheLine) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\n{{ x", "line 2: a tag is not closed"},
      {"{% if x }}", "line 1: a tag is not closed"},
      {"{# x", "line 1: a comment is not closed"},
      {"{{ 'x }}", "line 1: a string is not closed"},
      {"{{ 'x\\", "line 1: a string is not closed"},
      {"{{ 'a\\q' }}", "line 1: unsupported escape \\q"},
      {"\n\n{{ x ? y }}", "line 3: unexpected character '?'"},
      {"{{ 1.5 }}", "line 1: numbers with a fraction are not supported"},
      {"{{ 99999999999999999999 }}", "line 1: number 99999999999999999999 is too large"},
  };
  for (const auto& [source, message] : cases) {
    EXPECT_EQ(Tokenize(source).status().message(), message) << source;
  }
}

}  // namespace
}  // namespace nsa::jinja
