#include "engine/text/jinja/evaluator.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "engine/text/jinja/parser.h"

namespace nsa::jinja {
namespace {

Value Text(const char* text) { return Value(std::string(text)); }

// Variables of every type.
Value::Dict Variables() {
  return {{"word", Text("abc")},
          {"spaced", Text(" \t abc\n")},
          {"empty", Text("")},
          {"five", Value(int64_t{5})},
          {"yes", Value(true)},
          {"nothing", Value(None{})},
          {"list", Value(Value::List{Text("a"), Text("b"), Text("c")})},
          {"dict", Value(Value::Dict{{"key", Text("value")}})}};
}

absl::StatusOr<std::string> RunTemplate(const std::string& source,
                                        const RenderLimits& limits = {}) {
  const auto program = Parse(source);
  if (!program.ok()) return program.status();
  return Render(*program, Variables(), limits);
}

void ExpectAll(const std::vector<std::pair<std::string, std::string>>& cases) {
  for (const auto& [expression, expected] : cases) {
    const auto text = RunTemplate("{{ " + expression + " }}");
    EXPECT_TRUE(text.ok()) << expression << ": " << text.status();
    EXPECT_EQ(text.value_or(""), expected) << expression;
  }
}

TEST(EvaluatorTest, Operators) {
  ExpectAll({{"1 + 2 * 3", "7"},
             {"(1 + 2) * 3", "9"},
             {"7 // 2", "3"},
             {"-7 // 2", "-4"},
             {"-7 % 3", "2"},
             {"7 % -3", "-2"},
             {"5 // -1", "-5"},
             {"5 % -1", "0"},
             {"-five", "-5"},
             {"10 - 2 - 3", "5"},
             {"'a' + 'b'", "ab"},
             {"'a' 'b'", "ab"},
             {"'a' ~ 1 ~ nothing ~ yes ~ missing", "a1NoneTrue"},
             {"([1] + [2]) | length", "2"}});
}

TEST(EvaluatorTest, Comparisons) {
  ExpectAll({{"1 < 2", "True"},
             {"2 <= 2", "True"},
             {"'b' > 'a'", "True"},
             {"1 >= 2", "False"},
             {"word == 'abc'", "True"},
             {"word != 'abc'", "False"},
             {"word == five", "False"},
             {"yes == 1", "True"},
             {"false == 0", "True"},
             {"'' == false", "False"},
             {"none == false", "False"},
             {"[1, 'a'] == [1, 'a']", "True"},
             {"missing == none", "False"},
             {"'b' in list", "True"},
             {"'x' in list", "False"},
             {"'x' not in list", "True"},
             {"'bc' in word", "True"},
             {"'key' in dict", "True"}});
}

TEST(EvaluatorTest, LogicGivesOperandsAndSkipsWhatItNeedNot) {
  ExpectAll({{"'a' and 'b'", "b"},
             {"'' and missing.attribute", ""},
             {"'a' or missing.attribute", "a"},
             {"'' or 'b'", "b"},
             {"not ''", "True"},
             {"not list and yes", "False"},
             {"not 'x' in list", "True"},
             {"'a' if five > 4 else 'b'", "a"},
             {"'a' if five > 5 else 'b'", "b"},
             {"'a' if five > 5", ""},
             {"1 if empty else 2 if yes else 3", "2"}});
}

TEST(EvaluatorTest, AttributesIndicesAndSlices) {
  ExpectAll({{"dict.key", "value"},
             {"dict['key']", "value"},
             {"dict.absent", ""},
             {"list[0]", "a"},
             {"list[-1]", "c"},
             {"list[3]", ""},
             {"list[1:] | join", "bc"},
             {"list[:-1] | join", "ab"},
             {"list[::-1] | join", "cba"},
             {"list[::2] | join", "ac"},
             {"list[5:] | length", "0"},
             {"list[-2:] | join(', ')", "b, c"},
             {"list[1:2][0]", "b"}});
}

TEST(EvaluatorTest, MethodsFiltersAndTests) {
  ExpectAll({{"spaced.strip()", "abc"},
             {"spaced | trim", "abc"},
             {"'xxabxx'.strip('x')", "ab"},
             {"'xxabxx'.lstrip('x')", "abxx"},
             {"'xxabxx'.rstrip('x')", "xxab"},
             {"'\\t'.strip()", ""},
             {"word.upper() ~ 'DEF'.lower()", "ABCdef"},
             {"'hELLO' | capitalize", "Hello"},
             {"word.startswith('ab') and word.endswith('bc')", "True"},
             {"'a-b-c'.replace('-', '+')", "a+b+c"},
             {"'a,b,,c'.split(',') | length", "4"},
             {"'a</think>b'.split('</think>')[-1]", "b"},
             {"'h\xC3\xA9llo' | length", "5"},
             {"list | length ~ (dict | count)", "31"},
             {"list | first ~ (list | last)", "ac"},
             {"missing | default('d')", "d"},
             {"empty | default('d')", ""},
             {"empty | default('d', true)", "d"},
             {"5 | string + '1'", "51"},
             {"word is defined and missing is not defined", "True"},
             {"missing is undefined and nothing is none", "True"},
             {"word is string and list is iterable and dict is mapping", "True"},
             {"list is string", "False"},
             {"4 is even and 3 is odd", "True"},
             {"yes is true and yes is boolean and five is number", "True"}});
}

TEST(EvaluatorTest, Json) {
  ExpectAll({{"[1, 'a\"b\\n', true, none] | tojson", "[1, \"a\\\"b\\n\", true, null]"},
             {"dict | tojson", "{\"key\": \"value\"}"},
             {"'h\xC3\xA9' | tojson", "\"h\xC3\xA9\""}});
}

TEST(EvaluatorTest, LoopsKnowWhereTheyAre) {
  EXPECT_EQ(
      *RunTemplate("{% for x in list %}{{ loop.index0 }}{{ loop.index }}{{ loop.length }}{{ x }}"
                   "{{ '^' if loop.first }}{{ '$' if loop.last }} {% endfor %}"),
      "013a^ 123b 233c$ ");
  EXPECT_EQ(*RunTemplate("{% for x in [] %}never{% endfor %}none"), "none");
  EXPECT_EQ(*RunTemplate("{% for x in list %}{% for y in list %}{{ loop.index }}{% endfor %}"
                         "{{ loop.index }} {% endfor %}"),
            "1231 1232 1233 ");
}

TEST(EvaluatorTest, SetIsLocalToALoopButNotToAnIf) {
  EXPECT_EQ(*RunTemplate("{% set x = 1 %}{% for y in list %}{% set x = 2 %}{% endfor %}{{ x }}"),
            "1");
  EXPECT_EQ(*RunTemplate("{% set x = 1 %}{% if yes %}{% set x = 2 %}{% endif %}{{ x }}"), "2");
  EXPECT_EQ(
      *RunTemplate("{% set n = namespace(x=1, y='') %}{% for z in list %}{% set n.x = n.x * 2 %}"
                   "{% endfor %}{{ n.x }}"),
      "8");
}

TEST(EvaluatorTest, Branches) {
  const std::string source = "{% if five == N %}a{% elif five > N %}b{% else %}c{% endif %}";
  const auto with = [&](const std::string& number) {
    std::string text = source;
    for (size_t at = text.find('N'); at != std::string::npos; at = text.find('N')) {
      text.replace(at, 1, number);
    }
    return *RunTemplate(text);
  };
  EXPECT_EQ(with("5"), "a");
  EXPECT_EQ(with("4"), "b");
  EXPECT_EQ(with("6"), "c");
  EXPECT_EQ(*RunTemplate("{% if missing %}a{% endif %}"), "");
}

TEST(EvaluatorTest, ErrorsNameTheLine) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\n{{ missing.attribute }}", "line 2: '.attribute' of an undefined value"},
      {"{{ word + 1 }}", "line 1: '+' does not work on a string and a number"},
      {"{{ missing + 'a' }}", "line 1: '+' does not work on undefined and a string"},
      {"{{ 1 < 'a' }}", "line 1: '<' does not work on a number and a string"},
      {"{{ 1 in 2 }}", "line 1: 'in' does not work on a number and a number"},
      {"{{ 1 // 0 }}", "line 1: division by zero"},
      {"{{ 9223372036854775807 + 1 }}", "line 1: a number is too large"},
      {"{{ (-9223372036854775807 - 1) // -1 }}", "line 1: a number is too large"},
      {"{{ -(-9223372036854775807 - 1) }}", "line 1: a number is too large"},
      {"{{ list }}", "line 1: a list cannot be printed"},
      {"{{ five.strip() }}", "line 1: 'strip' needs a string, got a number"},
      {"{{ five | length }}", "line 1: 'length' needs a string, list or dict, got a number"},
      {"{{ ''.split('') }}", "line 1: 'split' needs a non-empty separator"},
      {"{{ list['a':] }}", "line 1: a slice's bounds are numbers"},
      {"{{ list[::0] }}", "line 1: a slice's step is 0"},
      {"{{ word[1:] }}", "line 1: a slice needs a list, got a string"},
      {"{{ word[0] }}", "line 1: '[]' does not work on a string and a number"},
      {"{% for x in word %}{% endfor %}", "line 1: a loop needs a list, got a string"},
      {"{% set word.x = 1 %}", "line 1: 'word' is no namespace"},
      {"{% set n = namespace() %}{% set n.n = n %}",
       "line 1: lists and dicts in a namespace are not supported"},
      {"{{ raise_exception('own words') }}", "own words"},
  };
  for (const auto& [source, message] : cases) {
    const absl::Status status = RunTemplate(source).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << source;
    EXPECT_EQ(status.message(), message) << source;
  }
}

TEST(EvaluatorTest, LimitsAreExact) {
  // 4 loop rounds x 2 bytes = 8 bytes of output.
  const std::string source = "{% for x in [1, 2, 3, 4] %}ab{% endfor %}";
  EXPECT_EQ(*RunTemplate(source, {.max_output_bytes = 8}), "abababab");
  const absl::Status output = RunTemplate(source, {.max_output_bytes = 7}).status();
  EXPECT_EQ(output.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(output.message(), "line 1: more than 7 bytes of output");
  // Steps: the for, its list with 4 items, per round one text and one turn.
  EXPECT_TRUE(RunTemplate(source, {.max_steps = 14}).ok());
  const absl::Status steps = RunTemplate(source, {.max_steps = 13}).status();
  EXPECT_EQ(steps.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(steps.message(), "line 1: more than 13 steps");
}

TEST(EvaluatorTest, GrowthIsBounded) {
  // Doubling 40 times would need a terabyte.
  std::string doubling_text = "{% set s = 'xxxxxxxx' %}";
  std::string doubling_list = "{% set s = [1, 2, 3, 4] %}";
  for (int i = 0; i < 40; ++i) {
    doubling_text += "{% set s = s + s %}";
    doubling_list += "{% set s = s + s %}";
  }
  EXPECT_EQ(RunTemplate(doubling_text).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RunTemplate(doubling_list).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace nsa::jinja
