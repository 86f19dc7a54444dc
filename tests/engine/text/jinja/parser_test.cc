#include "engine/text/jinja/parser.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace nsa::jinja {
namespace {

std::string Repeat(const std::string& text, int count) {
  std::string repeated;
  for (int i = 0; i < count; ++i) repeated += text;
  return repeated;
}

TEST(ParserTest, UnknownConstructsAreRefusedByNameAndLine) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{% macro f() %}", "line 1: statement 'macro' is not supported"},
      {"a\n{% include 'x' %}", "line 2: statement 'include' is not supported"},
      {"{% raw %}", "line 1: statement 'raw' is not supported"},
      {"{{ x | sort }}", "line 1: filter 'sort' is not supported"},
      {"{{ x is divisibleby(3) }}", "line 1: test 'divisibleby' is not supported"},
      {"{{ x.format(1) }}", "line 1: method 'format' is not supported"},
      {"{{ range(3) }}", "line 1: function 'range' is not supported"},
      {"{{ strftime_now('%Y') }}", "line 1: function 'strftime_now' is not supported"},
      {"{{ loop.cycle }}", "line 1: 'loop.cycle' is not supported"},
      {"{{ {'a': 1} }}", "line 1: dict literals are not supported"},
      {"{{ (1, 2) }}", "line 1: tuples are not supported"},
      {"{% for k, v in x %}{% endfor %}", "line 1: loops over pairs are not supported"},
      {"{{ x | tojson(indent=2) }}", "line 1: named arguments of 'tojson' are not supported"},
      {"{{ 1 < 2 < 3 }}", "line 1: chained comparisons are not supported"},
      {"{{ x.strip(1, 2) }}", "line 1: 'strip' does not take 2 arguments"},
      {"{{ x | replace('a') }}", "line 1: 'replace' does not take 1 arguments"},
  };
  for (const auto& [source, message] : cases) {
    EXPECT_EQ(Parse(source).status().message(), message) << source;
  }
}

TEST(ParserTest, BrokenTemplatesAreRefused) {
  for (const char* source : {"{% if x %}",
                             "{% if x %}{% else %}",
                             "{% for x in y %}",
                             "{% endif %}",
                             "{% endfor %}",
                             "{% else %}",
                             "{% if %}{% endif %}",
                             "{% for in y %}{% endfor %}",
                             "{% for x of y %}",
                             "{{ }}",
                             "{{ x y }}",
                             "{{ x + }}",
                             "{{ (x }}",
                             "{{ [x }}",
                             "{{ x[ }}",
                             "{{ x[] }}",
                             "{{ x[1:2:3:4] }}",
                             "{{ x. }}",
                             "{{ x | }}",
                             "{{ x is }}",
                             "{% set x %}",
                             "{% set x = %}",
                             "{% set = 1 %}",
                             "{% set x. = 1 %}",
                             "{% if x %}{% endfor %}",
                             "{% for x in y %}{% endif %}",
                             "{% if x %}{% else %}{% elif y %}{% endif %}",
                             "{{ raise_exception() }}",
                             "{{ namespace(1) }}",
                             "{% for x in y %}{% else %}{% endfor %}"}) {
    const absl::Status status = Parse(source).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << source;
    EXPECT_EQ(std::string(status.message()).rfind("line 1: ", 0), 0u) << status;
  }
}

TEST(ParserTest, DeepNestingIsRefusedNotFollowed) {
  constexpr int kDeep = 100'000;
  for (const std::string& source :
       {"{{ " + Repeat("(", kDeep) + " }}", "{{ " + Repeat("[", kDeep) + " }}",
        "{{ " + Repeat("not ", kDeep) + " }}", "{{ " + Repeat("-", kDeep) + "1 }}",
        "{{ 1" + Repeat(" + 1", kDeep) + " }}", "{{ x" + Repeat(".a", kDeep) + " }}",
        "{{ x" + Repeat("[0]", kDeep) + " }}", "{{ x" + Repeat(" and x", kDeep) + " }}",
        Repeat("{% if x %}", kDeep), Repeat("{% for x in x %}", kDeep),
        "{{ 1" + Repeat(" if 1 else 1", kDeep) + " }}"}) {
    const absl::Status status = Parse(source).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(status.message()).find("deeper than 100"), std::string::npos) << status;
  }
}

TEST(ParserTest, ModerateNestingIsFine) {
  EXPECT_TRUE(Parse("{{ " + Repeat("(", 40) + "1" + Repeat(")", 40) + " }}").ok());
  EXPECT_TRUE(Parse("{{ 1" + Repeat(" + 1", 80) + " }}").ok());
}

}  // namespace
}  // namespace nsa::jinja
