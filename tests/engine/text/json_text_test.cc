#include "engine/text/json_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace nsa {
namespace {

using testing::HasSubstr;

std::string Nested(int depth) {
  return "{\"a\":" + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
}

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(JsonTextTest, DepthIsBounded) {
  EXPECT_TRUE(ParseJsonDocument(Nested(kMaxJsonDepth)).ok());
  EXPECT_EQ(Message(ParseJsonDocument(Nested(kMaxJsonDepth + 1)).status()),
            "JSON nests 65 deep; allowed: 64");
  EXPECT_THAT(Message(ParseJsonDocument(Nested(1'000'000)).status()), HasSubstr("1000000 deep"));
  // Brackets of a string do not count, whatever is escaped in it.
  EXPECT_TRUE(ParseJsonDocument("{\"a\": \"\\\\\\\"" + std::string(100, '[') + "\"}").ok());
}

TEST(JsonTextTest, OnlyObjectsAreTaken) {
  for (const char* text : {"", "{", "{\"a\": 1", "nul", "{} {}", "\xFF"}) {
    EXPECT_EQ(Message(ParseJsonDocument(text).status()), "not valid JSON") << text;
  }
  EXPECT_EQ(Message(ParseJsonDocument("[]").status()), "not a JSON object");
}

TEST(JsonNodeTest, ValuesKnowWhereTheyStand) {
  const nlohmann::json json = *ParseJsonDocument(R"({"a": {"b": [5, "x", null]}, "flag": true})");
  const JsonNode root(&json);
  const auto elements = *root.Member("a").Member("b").Elements();
  ASSERT_EQ(elements.size(), 3u);
  EXPECT_EQ(elements[1].path(), "a.b[1]");
  EXPECT_EQ(*elements[0].Integer(0, 5), 5);
  EXPECT_EQ(*elements[1].String(), "x");
  EXPECT_TRUE(elements[2].is_absent());
  EXPECT_TRUE(*root.Member("flag").Bool(false));
  EXPECT_TRUE(*root.Member("none").Bool(true));
  EXPECT_TRUE(root.Member("none").Elements()->empty());
  EXPECT_TRUE(root.Member("none").Member("deeper").is_absent());
}

TEST(JsonNodeTest, WrongValuesAreNamed) {
  const nlohmann::json json = *ParseJsonDocument(
      R"({"a": 6, "huge": 18446744073709551615, "half": 0.5, "text": "x", "list": []})");
  const JsonNode root(&json);
  EXPECT_EQ(Message(root.Member("a").Integer(0, 5).status()),
            "a is 6; allowed: an integer from 0 to 5");
  EXPECT_THAT(Message(root.Member("huge").Integer(-1, 5).status()), HasSubstr("huge is 184467"));
  EXPECT_THAT(Message(root.Member("half").Integer(0, 5).status()), HasSubstr("half is 0.5"));
  EXPECT_THAT(Message(root.Member("none").Integer(0, 5).status()), HasSubstr("none is absent"));
  EXPECT_EQ(Message(root.Member("list").String().status()), "list is a list; allowed: a string");
  EXPECT_EQ(Message(root.Member("text").Bool(true).status()),
            "text is \"x\"; allowed: true or false");
  EXPECT_EQ(Message(root.Member("text").Elements().status()), "text is \"x\"; allowed: a list");
  const absl::Status unsupported = root.Member("text").Unsupported("y");
  EXPECT_EQ(unsupported.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(Message(unsupported), "text is \"x\"; supported: y");
}

}  // namespace
}  // namespace nsa
