#include "server/http/raw_json.h"

#include <gtest/gtest.h>

namespace nsa {
namespace {

TEST(RawJsonTest, MembersAsTheyWereWritten) {
  constexpr std::string_view kObject =
      " {\n \"a\" : 1.5e3 ,\"b\":{ \"z\":[1,{}, \"]}\"] , \"a\": \"\\\"}\" }, \"c\":\"x\\\\\","
      "\"d\":[ ],\"e\":null,\"f\" :true}\n";
  EXPECT_EQ(RawMember(kObject, "a"), "1.5e3");
  EXPECT_EQ(RawMember(kObject, "b"), R"({ "z":[1,{}, "]}"] , "a": "\"}" })");
  EXPECT_EQ(RawMember(kObject, "c"), R"("x\\")");
  EXPECT_EQ(RawMember(kObject, "d"), "[ ]");
  EXPECT_EQ(RawMember(kObject, "e"), "null");
  EXPECT_EQ(RawMember(kObject, "f"), "true");
  EXPECT_EQ(RawMember(kObject, "z"), std::nullopt);  // of an inner object
  EXPECT_EQ(RawMember(*RawMember(kObject, "b"), "a"), R"("\"}")");
}

TEST(RawJsonTest, KeysAreComparedUnescaped) {
  EXPECT_EQ(RawMember(R"({"\u0061\n":1,"b":2})", "a\n"), "1");
  EXPECT_EQ(RawMember(R"({"\"b":1,"b":2})", "b"), "2");
}

TEST(RawJsonTest, EmptyObjects) {
  EXPECT_EQ(RawMember("{}", "a"), std::nullopt);
  EXPECT_EQ(RawMember("{ }", ""), std::nullopt);
  EXPECT_EQ(RawMember(R"({"":[]})", ""), "[]");
}

}  // namespace
}  // namespace nsa
