// Specs that mean harm: each ends with a clear answer, in bounded time and memory.

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/constraint/constraint_compiler.h"
#include "tests/engine/constraint/vocabulary.h"

namespace nsa {
namespace {

const Vocabulary& Words() {
  static const Vocabulary& vocabulary = *new Vocabulary(60'000);
  return vocabulary;
}

std::string Repeat(std::string_view text, int count) {
  std::string repeated;
  for (int i = 0; i < count; ++i) repeated += text;
  return repeated;
}

// The answer to a spec; a constraint that compiles is also used for a while, within the memory that
// it may take.
std::string AnswerTo(const ConstraintSpec& spec, const ConstraintLimits& limits = {}) {
  ConstraintCompiler compiler(Words().table, limits, 0);
  const absl::Time start = absl::Now();
  const auto compiled = compiler.Compile(spec);
  // Sanitizers and busy machines get their time; without a limit these run for hours.
  EXPECT_LT(absl::Now() - start, limits.max_compile_time * 10);
  if (!compiled.ok()) return std::string(compiled.status().message());
  std::mt19937_64 random(1);
  ConstraintState state(*compiled);
  std::vector<uint32_t> words(Words().table->num_mask_words());
  for (int i = 0; i < 30 && !state.has_ended(); ++i) {
    if (!state.FillMask(words).ok()) return "ended at run time";
    const auto allowed = AllowedTokens(&state, Words().table->vocab_size());
    EXPECT_TRUE(state.Advance(allowed[random() % allowed.size()]));
  }
  EXPECT_LT((*compiled)->memory_bytes(), limits.max_cache_bytes * 2);
  return "compiled";
}

std::string AnswerToSchema(const std::string& schema) {
  return AnswerTo({.kind = ConstraintKind::kJsonSchema, .source = schema});
}
std::string AnswerToRegex(const std::string& regex) {
  return AnswerTo({.kind = ConstraintKind::kRegex, .source = regex});
}

TEST(ConstraintLimitsTest, DeepSchemas) {
  EXPECT_EQ(AnswerToSchema(Repeat("[", 100'000)), "the schema nests 100000 deep, the limit is 64");
  EXPECT_EQ(AnswerToSchema(Repeat(R"({"items":)", 65) + "true" + Repeat("}", 65)),
            "the schema nests 65 deep, the limit is 64");
  // Brackets inside strings do not count.
  EXPECT_EQ(AnswerToSchema(R"({"const": "\"[[[[[)" + Repeat("[{", 500) + "\"}"), "compiled");
}

TEST(ConstraintLimitsTest, ExponentialExpressions) {
  EXPECT_TRUE(absl::StrContains(AnswerToRegex("((a{1000}){1000}){1000}"), "grammar states"));
  EXPECT_TRUE(absl::StrContains(AnswerToRegex("(?:.*){50000}"), "grammar states"));
  EXPECT_TRUE(absl::StrContains(AnswerToRegex("(?:a?){20000}"), "too ambiguous"));
  // The states double with each "x".
  EXPECT_TRUE(absl::StrContains(
      AnswerTo({.kind = ConstraintKind::kRegex, .source = "(?:.|x)*x.{40}"},
               {.max_compile_time = absl::Seconds(20), .warm_up_time = absl::Seconds(20)}),
      "too ambiguous"));
  EXPECT_TRUE(
      absl::StrContains(AnswerToRegex(Repeat("(", 65) + "a" + Repeat(")", 65)), "limit of 64"));
  EXPECT_EQ(AnswerToRegex("(a+)+(a+)+(a+)+b"), "compiled");
  EXPECT_EQ(AnswerToRegex("(?:a|b)*a(?:a|b){12}"), "compiled");
}

TEST(ConstraintLimitsTest, HugeEnumerations) {
  std::string values;
  for (int i = 0; i < 12'000; ++i) absl::StrAppend(&values, i == 0 ? "" : ",", "\"v", i, "\"");
  EXPECT_EQ(AnswerToSchema(absl::StrCat(R"({"enum": [)", values, "]}")), "compiled");
  values += Repeat(",\"more\"", 20'000);
  EXPECT_TRUE(absl::StrContains(AnswerToSchema(absl::StrCat(R"({"enum": [)", values, "]}")),
                                "bytes, the limit is"));
}

TEST(ConstraintLimitsTest, HugeCounts) {
  EXPECT_TRUE(absl::StrContains(AnswerToSchema(R"({"type": "string", "maxLength": 1e300})"),
                                "grammar states"));
  EXPECT_TRUE(absl::StrContains(AnswerToSchema(R"({"type": "array", "minItems": 1000000000})"),
                                "grammar states"));
  EXPECT_EQ(AnswerToSchema(R"({"type": "string", "maxLength": 2000})"), "compiled");
}

TEST(ConstraintLimitsTest, RecursionWithoutAnEnd) {
  for (const char* schema :
       {R"({"$ref": "#"})", R"({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]})",
        R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})",
        R"({"type": "array", "items": {"$ref": "#"}, "minItems": 1})"}) {
    EXPECT_TRUE(absl::StrContains(AnswerToSchema(schema), "accepts no output")) << schema;
  }
  EXPECT_TRUE(absl::StrContains(AnswerToSchema(R"({"allOf": [{"$ref": "#"}, {"type": "null"}]})"),
                                "lead to each other"));
  EXPECT_EQ(AnswerToSchema(R"({"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"type": "null"}]})"),
            "compiled");
}

TEST(ConstraintLimitsTest, ConjunctionsThatGrow) {
  // Each level merges what the level below merged.
  std::string schema =
      R"({"$defs": {"d0": {"type": "object", "properties": {"a": true, "b": true}})";
  for (int i = 1; i < 30; ++i) {
    const std::string below = absl::StrCat(R"({"$ref": "#/$defs/d)", i - 1, R"("})");
    absl::StrAppend(&schema, ", \"d", i, R"(": {"allOf": [)", below, ",", below, "]}");
  }
  EXPECT_TRUE(absl::StrContains(AnswerToSchema(schema + R"(}, "$ref": "#/$defs/d29"})"),
                                "longer to compile"));
}

TEST(ConstraintLimitsTest, ManyAlternatives) {
  std::string branches;
  for (int i = 0; i < 3000; ++i)
    absl::StrAppend(&branches, i == 0 ? "" : ",", R"({"type": "object"})");
  EXPECT_NE(AnswerToSchema(absl::StrCat(R"({"anyOf": [)", branches, "]}")), "");
  std::string members;
  for (int i = 0; i < 1000; ++i)
    absl::StrAppend(&members, i == 0 ? "" : ",", "\"member ", i, "\": {}");
  EXPECT_EQ(AnswerToSchema(absl::StrCat(R"({"type": "object", "properties": {)", members,
                                        R"(}, "additionalProperties": false})")),
            "compiled");
}

}  // namespace
}  // namespace nsa
