#include "engine/constraint/schema_compiler.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/constraint/constraint_compiler.h"
#include "tests/engine/constraint/vocabulary.h"

namespace nsa {
namespace {

const Vocabulary& Words() {
  static const Vocabulary& vocabulary = *new Vocabulary(600);
  return vocabulary;
}

absl::StatusOr<std::shared_ptr<const CompiledConstraint>> Compile(const std::string& schema) {
  return ConstraintCompiler(Words().table, {}, 0)
      .Compile({.kind = ConstraintKind::kJsonSchema, .source = schema});
}

std::string Refusal(const std::string& schema) {
  const auto compiled = Compile(schema);
  if (compiled.ok()) return "not refused";
  EXPECT_EQ(compiled.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(compiled.status().message());
}

void ExpectAccepts(const std::string& schema, const std::vector<std::string>& good,
                   const std::vector<std::string>& bad) {
  const auto compiled = Compile(schema);
  ASSERT_TRUE(compiled.ok()) << compiled.status();
  for (const std::string& text : good) {
    EXPECT_TRUE(Accepts(ConstraintState(*compiled), Words(), text)) << schema << " and " << text;
  }
  for (const std::string& text : bad) {
    EXPECT_FALSE(Accepts(ConstraintState(*compiled), Words(), text)) << schema << " and " << text;
  }
}

TEST(SchemaCompilerTest, MembersComeInTheOrderOfProperties) {
  const char* schema = R"({"type": "object", "properties": {"b": {"type": "integer"}, "a": true},
                           "required": ["b"], "additionalProperties": false})";
  ExpectAccepts(schema, {R"({"b":1})", R"({"b": 1, "a": []})", "{\n  \"b\": 1,\n  \"a\": 2\n}"},
                {R"({"a":1,"b":1})", R"({"a":1})", "{}", R"({"b":1,})", R"({"b":1,"c":1})",
                 R"({"b":1,"b":1})"});
}

TEST(SchemaCompilerTest, AdditionalMembersComeLastAndAreNotNamedOnes) {
  ExpectAccepts(R"({"type": "object", "properties": {"ab": {"type": "null"}}})",
                {R"({"ab":null,"abc":1})", R"({"a":1,"b\"":2})", R"({"":1})", "{}"},
                {R"({"ab":1})", R"({"\u0061b":1})", R"({"x":1,"ab":1})", R"({"x":1,"ab":null})"});
  ExpectAccepts(
      R"({"type": "object", "required": ["z"], "additionalProperties": {"type": "null"}})",
      {R"({"z":null})", R"({"z":null,"y":null})"}, {"{}", R"({"z":1})", R"({"y":null})"});
}

TEST(SchemaCompilerTest, WhiteSpaceIsBounded) {
  const std::string spaces(constraint::kMaxIndentation, ' ');
  ExpectAccepts(
      R"({"type": "array", "items": {"type": "integer"}})",
      {"[]", "[ ]", "[1,2]", "[1, 2]", "[\n1,\n  2\n]", "[\n" + spaces + "1]"},
      {"[  ]", " []", "[] ", "[1 , 2]", "[1,  2]", "[\n\n1]", "[\t1]", "[\n" + spaces + " 1]"});
}

TEST(SchemaCompilerTest, ArraysCount) {
  ExpectAccepts(R"({"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 2})",
                {"[null]", "[null,null]"}, {"[]", "[null,null,null]", "[1]"});
  ExpectAccepts(R"({"type": "array", "maxItems": 0})", {"[]"}, {"[1]"});
  ExpectAccepts(R"({"type": "array", "minItems": 2})", {"[1,[2]]", "[1,2,3]"}, {"[]", "[1]"});
  ExpectAccepts(R"({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": false})",
                {"[]", "[1]", "[1,2]"}, {"[2]", "[1,2,3]", "[1,]"});
  ExpectAccepts(
      R"({"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 0}, "minItems": 3})",
      {"[1,0,0]", "[1,0,0,0]"}, {"[1,0]", "[1,0,1]", "[1]"});
}

TEST(SchemaCompilerTest, KeywordsApplyToTheirTypeAlone) {
  ExpectAccepts(R"({"minLength": 3, "minimum": 5})", {"\"abc\"", "5", "null", "[]", "{\"a\":1}"},
                {"\"ab\"", "4"});
  ExpectAccepts(R"({"type": "string", "minimum": 5, "nullable": true})", {"\"\"", "null"}, {"7"});
}

TEST(SchemaCompilerTest, EnumerationsAreFilteredByType) {
  ExpectAccepts(R"({"enum": ["a", 1, null, 2.0, [1, {"k": "v"}]], "type": ["integer", "array"]})",
                {"1", "2.0", "[1,{\"k\":\"v\"}]", "[\n  1, { \"k\": \"v\" }\n]"},
                {"\"a\"", "null", "[1]"});
  ExpectAccepts(R"({"const": "\u00e9\"\n"})", {"\"\xC3\xA9\\\"\\n\""}, {"\"\\u00e9\\\"\\n\""});
}

TEST(SchemaCompilerTest, StringsCountCodePointsInAnySpelling) {
  ExpectAccepts(
      R"({"type": "string", "minLength": 2, "maxLength": 2})",
      {"\"\xC3\xA9\xE2\x82\xAC\"", R"("\u0041\ud83d\ude00")", R"("\n\/")"},
      {"\"a\"", "\"abc\"", R"("\ud83d\ude00")", R"("\ud83da")", R"("\ude00a")", R"("\x41a")"});
}

TEST(SchemaCompilerTest, PatternsSearch) {
  ExpectAccepts(R"({"type": "string", "pattern": "b+"})", {"\"abc\"", "\"\\n\xC3\xA9 b\\\"\""},
                {"\"ac\""});
  ExpectAccepts(R"({"type": "string", "pattern": "^\\S\"$"})", {"\"x\\\"\""},
                {"\" \\\"\"", "\"x\"\""});
}

TEST(SchemaCompilerTest, DisjunctionsTakeTheirSiblingsAlong) {
  ExpectAccepts(
      R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                    "additionalProperties": false, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]})",
      {R"({"a":1})", R"({"b":1})", R"({"a":1,"b":2})"}, {"{}", R"({"a":null})"});
  ExpectAccepts(R"({"minimum": 3, "oneOf": [{"type": "integer"}, {"type": "null"}]})",
                {"3", "null"}, {"2", "\"\""});
}

TEST(SchemaCompilerTest, ConjunctionsOfReferences) {
  ExpectAccepts(
      R"({"$defs": {"base": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}},
                    "allOf": [{"$ref": "#/$defs/base"}, {"properties": {"id": {"maximum": 9}, "next": {"$ref": "#"}},
                               "additionalProperties": false}]})",
      {R"({"id":9})", R"({"id":1,"next":{"id":2}})"},
      {R"({"id":10})", R"({"id":1,"next":{}})", R"({"id":1,"x":1})", "{}"});
}

TEST(SchemaCompilerTest, ReferencesFollowJsonPointers) {
  ExpectAccepts(R"({"properties": {"a/b": {"type": "null"}}, "type": "object", "required": ["c"],
                    "additionalProperties": {"$ref": "#/properties/a~1b"}})",
                {R"({"c":null})"}, {R"({"c":1})"});
  EXPECT_EQ(Refusal(R"({"properties": {"x": {"$ref": "#/$defs/none"}}})"),
            "schema at /properties/x/$ref: nothing is at #/$defs/none");
  EXPECT_TRUE(absl::StrContains(Refusal(R"({"$ref": "http://example.com"})"), "'#/...'"));
}

TEST(SchemaCompilerTest, EveryUnsupportedKeywordIsRefusedByItsPointer) {
  for (const char* keyword :
       {R"("not": {})", R"("if": {})", R"("contains": {})", R"("multipleOf": 2)",
        R"("patternProperties": {"a": {}})", R"("propertyNames": {"maxLength": 3})",
        R"("dependentRequired": {"a": ["b"]})", R"("dependentSchemas": {"a": {}})",
        R"("unevaluatedProperties": false)", R"("unevaluatedItems": false)",
        R"("uniqueItems": true)", R"("$dynamicRef": "#x")", R"("additionalItems": false)",
        R"("then": {})"}) {
    const std::string name(keyword + 1, std::string_view(keyword).find('"', 1) - 1);
    const std::string expected =
        absl::StrCat("schema at /properties/a~1b/", name, ": this keyword is not supported");
    EXPECT_EQ(Refusal(absl::StrCat(R"({"properties": {"a/b": {)", keyword, "}}}")), expected);
    // Not lost on the way through a conjunction either.
    EXPECT_NE(Refusal(absl::StrCat(R"({"type": "object", "allOf": [{"type": "object"}, {)", keyword,
                                   "}]}")),
              "not refused");
  }
}

TEST(SchemaCompilerTest, RefusesWhatItCannotSayExactly) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"type": "string", "pattern": "a", "maxLength": 3})", "/pattern"},
      {R"({"type": "string", "format": "date", "pattern": "a"})", "/pattern"},
      {R"({"type": "object", "minProperties": 1})", "/minProperties"},
      {R"({"type": "object", "maxProperties": 1})", "/maxProperties"},
      {R"({"type": "number", "minimum": 1e-20})", "the bound 1e-20"},
      {R"({"type": "strin"})", "/type"},
      {R"({"type": "array", "items": [{}]})", "prefixItems"},
      {R"x({"type": "string", "pattern": "(?=a)"})x", "lookaround"},
      {R"({"enum": ["a"], "minLength": 3})", "enum and const"},
      {R"({"anyOf": [{}], "oneOf": [{}]})", "anyOf beside oneOf"},
      {R"({"anyOf": []})", "/anyOf"},
      {R"({"type": "integer", "exclusiveMinimum": true})", "/exclusiveMinimum"},
      {R"({"type": "string", "minLength": -1})", "/minLength"},
      {R"({"properties": {"a": 5}})", "/properties/a"},
      {R"({"required": "a", "type": "object"})", "/required"},
      {R"([1])", "the root"},
      {R"({"type": })", "not valid JSON"},
      {R"({"allOf": [{"pattern": "a"}, {"pattern": "b"}]})", "/pattern"},
  };
  for (const auto& [schema, expected] : cases) {
    EXPECT_TRUE(absl::StrContains(Refusal(schema), expected)) << schema << ": " << Refusal(schema);
  }
}

TEST(SchemaCompilerTest, RefusesWhatAcceptsNothing) {
  for (const char* schema :
       {"false", R"({"enum": []})", R"({"type": "integer", "minimum": 5, "maximum": 4})",
        R"({"$ref": "#"})",
        R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})",
        R"({"type": "object", "required": ["a"], "additionalProperties": false})",
        R"({"allOf": [{"type": "string"}, {"type": "null"}]})",
        R"({"type": "string", "minLength": 3, "maxLength": 2})"}) {
    EXPECT_TRUE(absl::StrContains(Refusal(schema), "accepts no output")) << schema;
  }
}

TEST(SchemaCompilerTest, OutputsNestUpToTheLimitAndCanAlwaysEnd) {
  const auto compiled =
      ConstraintCompiler(Words().table, {.max_output_nesting = 3}, 0)
          .Compile({.kind = ConstraintKind::kJsonSchema, .source = R"({"type": "array"})"});
  ASSERT_TRUE(compiled.ok());
  EXPECT_TRUE(Accepts(ConstraintState(*compiled), Words(), "[[[]]]"));
  EXPECT_FALSE(Accepts(ConstraintState(*compiled), Words(), "[[[[]]]]"));
}

TEST(SchemaCompilerTest, AnnotationsAndUnknownWordsSayNothing) {
  ExpectAccepts(
      R"({"title": "t", "description": "d", "default": 1, "examples": [2], "x-own": {}, "format": "color",
                    "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "string", "uniqueItems": false})",
      {"\"any\""}, {"1"});
}

}  // namespace
}  // namespace nsa
