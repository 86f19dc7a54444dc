#include "server/http/json_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/error_detail.h"

namespace nsa {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;

nlohmann::json Parse(const std::string& text) {
  auto document = ParseJsonObject(text);
  EXPECT_TRUE(document.ok()) << document.status();
  return document.ok() ? *std::move(document) : nlohmann::json::object();
}

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(ParseJsonObject, BuildsTheDocument) {
  const nlohmann::json document = Parse(
      R"({"a":[1,-2,3.5,"x",null,true,{"b":[]},[[]]],"c":{"d":{"e":"f"}},"g":18446744073709551615})");
  EXPECT_EQ(
      document.dump(),
      R"({"a":[1,-2,3.5,"x",null,true,{"b":[]},[[]]],"c":{"d":{"e":"f"}},"g":18446744073709551615})");
}

TEST(ParseJsonObject, RefusesWhatIsNotOneObject) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "parse error"},
      {"{", "parse error"},
      {"nope", "parse error"},
      {R"({"a":1,})", "parse error"},
      {R"({"a":1} x)", "parse error"},
      {R"({'a':1})", "parse error"},
      {"{\"a\":\"\x01\"}", "control character"},
      {"{\"a\":\"\xC3\x28\"}", "UTF-8"},
      {"{\"a\":\"\xED\xA0\x80\"}", "UTF-8"},  // a surrogate
      {R"({"a":"\ud800"})", "surrogate"},
      {R"({"a":NaN})", "parse error"},
      {R"({"a":1e999})", "number overflow"},
      {"[]", "it is a list, not an object"},
      {"\"x\"", "it is a string, not an object"},
      {"null", "it is null, not an object"},
      {R"({"a":1,"a":2})", "key 'a' appears twice"},
      {R"({"b":{"a":1,"c":2,"a":null}})", "key 'a' appears twice"},
  };
  for (const auto& [text, problem] : cases) {
    const absl::Status status = ParseJsonObject(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(GetDetail(status).code, "invalid_json") << text;
    EXPECT_THAT(Message(status), HasSubstr(problem)) << text;
    EXPECT_LT(status.message().size(), 400U);
  }
}

TEST(ParseJsonObject, TheSameKeyInTwoObjectsIsFine) {
  EXPECT_EQ(Parse(R"({"l":[{"a":1},{"a":2}],"a":3})")["a"], 3);
}

TEST(ParseJsonObject, LimitsTheDepth) {
  const auto nested = [](int depth) {
    return R"({"a":)" + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
  };
  EXPECT_TRUE(ParseJsonObject(nested(kMaxJsonDepth)).ok());
  EXPECT_THAT(Message(ParseJsonObject(nested(kMaxJsonDepth + 1)).status()),
              HasSubstr("deeper than 64"));
  EXPECT_FALSE(ParseJsonObject(nested(1000000)).ok());
}

TEST(ParseJsonObject, QuotesLittleOfALongBody) {
  const absl::Status status = ParseJsonObject("{\"" + std::string(100000, 'k') + "\" 1").status();
  EXPECT_LT(status.message().size(), 400U);
}

TEST(JsonFields, ReadsEachType) {
  const nlohmann::json object =
      Parse(R"({"s":"x","b":true,"i":-5,"d":2,"f":0.5,"l":[1,2],"o":{},"ss":["a","b"]})");
  JsonFields fields(object);
  EXPECT_THAT(fields.String("s"), Optional(std::string("x")));
  EXPECT_THAT(fields.Bool("b"), Optional(true));
  EXPECT_THAT(fields.Int("i"), Optional(-5));
  EXPECT_THAT(fields.Number("d"), Optional(2.0));
  EXPECT_THAT(fields.Number("f"), Optional(0.5));
  EXPECT_THAT(*fields.IntList("l"), ElementsAre(1, 2));
  EXPECT_NE(fields.Object("o"), nullptr);
  EXPECT_THAT(*fields.StringOrList("s"), ElementsAre("x"));
  EXPECT_THAT(*fields.StringOrList("ss"), ElementsAre("a", "b"));
  EXPECT_TRUE(fields.status().ok());
}

TEST(JsonFields, NullAndMissingAreAbsent) {
  const nlohmann::json object = Parse(R"({"n":null})");
  JsonFields fields(object);
  for (const char* key : {"n", "missing"}) {
    EXPECT_EQ(fields.String(key), std::nullopt);
    EXPECT_EQ(fields.Bool(key), std::nullopt);
    EXPECT_EQ(fields.Int(key), std::nullopt);
    EXPECT_EQ(fields.Number(key), std::nullopt);
    EXPECT_EQ(fields.IntList(key), std::nullopt);
    EXPECT_EQ(fields.StringOrList(key), std::nullopt);
    EXPECT_EQ(fields.Object(key), nullptr);
  }
  EXPECT_TRUE(fields.status().ok());
}

TEST(JsonFields, WrongTypesAreNamed) {
  const nlohmann::json object = Parse(R"({"s":"1","i":1,"f":1.5,"l":[1,"2"],"m":["a",3],"o":{}})");
  const auto problem_of = [&](auto read) {
    JsonFields fields(object, "outer.");
    read(&fields);
    EXPECT_EQ(GetDetail(fields.status()).code, "invalid_type");
    return GetDetail(fields.status()).param + ": " + Message(fields.status());
  };
  EXPECT_EQ(problem_of([](JsonFields* f) { f->Int("s"); }),
            "outer.s: 'outer.s' must be an integer, not a string");
  EXPECT_EQ(problem_of([](JsonFields* f) { f->Int("f"); }),
            "outer.f: 'outer.f' must be an integer, not a number with a fraction or exponent");
  EXPECT_EQ(problem_of([](JsonFields* f) { f->Number("s"); }),
            "outer.s: 'outer.s' must be a number, not a string");
  EXPECT_EQ(problem_of([](JsonFields* f) { f->Bool("i"); }),
            "outer.i: 'outer.i' must be a boolean, not an integer");
  EXPECT_EQ(problem_of([](JsonFields* f) { f->String("i"); }),
            "outer.i: 'outer.i' must be a string, not an integer");
  EXPECT_EQ(problem_of([](JsonFields* f) { f->IntList("l"); }),
            "outer.l[1]: 'outer.l[1]' must be an integer, not a string");
  EXPECT_EQ(problem_of([](JsonFields* f) { f->IntList("o"); }),
            "outer.o: 'outer.o' must be a list of integers, not an object");
  EXPECT_EQ(problem_of([](JsonFields* f) { f->StringOrList("m"); }),
            "outer.m[1]: 'outer.m[1]' must be a string, not an integer");
  EXPECT_EQ(problem_of([](JsonFields* f) { f->Object("l"); }),
            "outer.l: 'outer.l' must be an object, not a list");
}

TEST(JsonFields, IntegersAreOf64Bits) {
  const nlohmann::json object = Parse(
      R"({"max":9223372036854775807,"min":-9223372036854775808,"over":9223372036854775808,
          "huge":99999999999999999999,"low":-99999999999999999999,"exp":1e30})");
  JsonFields good(object);
  EXPECT_THAT(good.Int("max"), Optional(INT64_MAX));
  EXPECT_THAT(good.Int("min"), Optional(INT64_MIN));
  EXPECT_TRUE(good.status().ok());
  for (const char* key : {"over", "huge", "low", "exp"}) {
    JsonFields fields(object);
    EXPECT_EQ(fields.Int(key), std::nullopt);
    EXPECT_EQ(GetDetail(fields.status()).code, "invalid_value") << key;
    EXPECT_THAT(Message(fields.status()), HasSubstr("64-bit")) << key;
  }
}

TEST(JsonFields, UnknownFieldsAreIgnoredOrRefused) {
  const nlohmann::json object = Parse(R"({"a":1,"b":{"c":2,"d":null},"z":3})");
  const auto read = [&](UnknownFields unknown, bool with_rest) {
    JsonFields fields(object, "", unknown);
    fields.Int("a");
    JsonFields inner = fields.Inner("b", *fields.Object("b"));
    inner.Int("c");
    if (with_rest) inner.Find("d");
    fields.Merge(inner.Finish());
    if (with_rest) fields.Find("z");
    return fields.Finish();
  };
  EXPECT_TRUE(read(UnknownFields::kIgnored, false).ok());
  EXPECT_TRUE(read(UnknownFields::kRefused, true).ok());
  const absl::Status refused = read(UnknownFields::kRefused, false);
  EXPECT_EQ(refused.message(), "'b.d' is not a field that this server knows");
  EXPECT_EQ(GetDetail(refused).param, "b.d");
  EXPECT_EQ(GetDetail(refused).code, "invalid_value");
}

TEST(JsonFields, ALongUnknownNameIsNotRepeated) {
  const nlohmann::json object = {{std::string(100'000, 'x'), 1}};
  JsonFields fields(object, "", UnknownFields::kRefused);
  EXPECT_LT(fields.Finish().message().size(), 300U);
  EXPECT_LT(GetDetail(fields.status()).param.size(), 300U);
}

TEST(JsonFields, KeepsTheFirstError) {
  const nlohmann::json object = Parse(R"({"a":"x","b":"y"})");
  JsonFields fields(object);
  fields.Int("a");
  fields.Int("b");
  fields.RefuseMissing("c");
  fields.Merge(absl::InternalError("later"));
  EXPECT_EQ(GetDetail(fields.status()).param, "a");
}

}  // namespace
}  // namespace nsa
