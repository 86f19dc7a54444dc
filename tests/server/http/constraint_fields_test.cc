#include "server/http/constraint_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "server/error_detail.h"
#include "tests/server/http/api_fixture.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

struct Reading {
  GenerateCall call;
  absl::Status status;
  // "param code"; "" if all is well.
  std::string Refusal() const {
    if (status.ok()) return "";
    return absl::StrCat(GetDetail(status).param, " ", GetDetail(status).code);
  }
};

Reading Read(const std::string& body) {
  const auto document = ParseJsonObject(body);
  EXPECT_TRUE(document.ok()) << body;
  JsonFields fields(*document);
  Reading reading;
  ReadConstraintFields(body, &fields, &reading.call);
  reading.status = fields.status();
  return reading;
}

GivenConstraint ReadOne(const std::string& body) {
  const Reading reading = Read(body);
  EXPECT_TRUE(reading.status.ok()) << reading.status;
  EXPECT_EQ(reading.call.constraints.size(), 1U) << body;
  return reading.call.constraints.empty() ? GivenConstraint() : *reading.call.constraints[0];
}

TEST(ConstraintFieldsTest, FieldsThatConstrainNothing) {
  for (const char* body :
       {"{}", R"({"response_format":null,"guided_json":null,"guided_regex":null})",
        R"({"response_format":{"type":"text"},"guided_choice":null})"}) {
    const Reading reading = Read(body);
    EXPECT_TRUE(reading.status.ok() && reading.call.constraints.empty()) << body;
  }
}

TEST(ConstraintFieldsTest, ASchemaKeepsTheOrderOfItsMembers) {
  const std::string schema = R"({"properties":{"z":{},"a":{}},"type":"object"})";
  const GivenConstraint format = ReadOne(absl::StrCat(
      R"({"response_format":{"json_schema":{"strict":true,"description":"d","schema":)", schema,
      R"(,"name":"n-1_B"},"type":"json_schema"}})"));
  EXPECT_EQ(format.field, "response_format.json_schema.schema");
  EXPECT_EQ(format.spec, (ConstraintSpec{.kind = ConstraintKind::kJsonSchema, .source = schema}));
  const GivenConstraint guided = ReadOne(absl::StrCat(R"({"guided_json" : )", schema, "}"));
  EXPECT_EQ(guided.field, "guided_json");
  EXPECT_EQ(guided.spec, format.spec);
  EXPECT_EQ(ReadOne(R"({"guided_json":"{\"type\":\"null\"}"})").spec.source, R"({"type":"null"})");
}

// The parser skips a byte order mark; a reader of its own once found no object behind one.
TEST(ConstraintFieldsTest, ABodyMayBeginWithAByteOrderMark) {
  const std::string mark = "\xEF\xBB\xBF";
  EXPECT_EQ(ReadOne(mark + R"( {"guided_json":{"type":"null"}})").spec.source,
            R"({"type":"null"})");
  EXPECT_EQ(ReadOne(mark + R"({"response_format":{"type":"json_schema","json_schema":
                               {"name":"n","schema":{"type":"null"}}}})")
                .spec.source,
            R"({"type":"null"})");
}

TEST(ConstraintFieldsTest, TheOtherKinds) {
  EXPECT_EQ(ReadOne(R"({"response_format":{"type":"json_object"}})").spec.kind,
            ConstraintKind::kJsonObject);
  const GivenConstraint regex = ReadOne(R"({"guided_regex":"a\\d"})");
  EXPECT_EQ(regex.field, "guided_regex");
  EXPECT_EQ(regex.spec, (ConstraintSpec{.kind = ConstraintKind::kRegex, .source = "a\\d"}));
  const GivenConstraint choice = ReadOne(R"({"guided_choice":["b","a"]})");
  EXPECT_EQ(choice.field, "guided_choice");
  EXPECT_EQ(choice.spec, (ConstraintSpec{.kind = ConstraintKind::kChoice, .choices = {"b", "a"}}));
}

TEST(ConstraintFieldsTest, MalformedFieldsAreNamed) {
  const auto format = [](const std::string& value) {
    return Read(absl::StrCat(R"({"response_format":)", value, "}")).Refusal();
  };
  const auto schema = [&](const std::string& value) {
    return format(absl::StrCat(R"({"type":"json_schema","json_schema":)", value, "}"));
  };
  EXPECT_EQ(format("\"text\""), "response_format invalid_type");
  EXPECT_EQ(format("{}"), "response_format.type missing_required_parameter");
  EXPECT_EQ(format(R"({"type":1})"), "response_format.type invalid_type");
  EXPECT_EQ(format(R"({"type":"grammar"})"), "response_format.type invalid_value");
  EXPECT_EQ(format(R"({"type":"text","json_schema":{}})"),
            "response_format.json_schema invalid_value");
  EXPECT_EQ(format(R"({"type":"json_schema"})"),
            "response_format.json_schema missing_required_parameter");
  EXPECT_EQ(schema("[]"), "response_format.json_schema invalid_type");
  EXPECT_EQ(schema(R"({"schema":{}})"),
            "response_format.json_schema.name missing_required_parameter");
  EXPECT_EQ(schema(R"({"name":"n"})"),
            "response_format.json_schema.schema missing_required_parameter");
  EXPECT_EQ(schema(R"({"name":"n","schema":"{}"})"),
            "response_format.json_schema.schema invalid_type");
  EXPECT_EQ(schema(R"({"name":"n","schema":{},"strict":1})"),
            "response_format.json_schema.strict invalid_type");
  for (const std::string& name : {std::string(), std::string("a b"), std::string(65, 'n')}) {
    EXPECT_EQ(schema(absl::StrCat(R"({"schema":{},"name":")", name, "\"}")),
              "response_format.json_schema.name invalid_value");
  }
  EXPECT_EQ(schema(absl::StrCat(R"({"schema":{},"name":")", std::string(64, 'n'), "\"}")), "");
  EXPECT_EQ(Read(R"({"guided_json":[]})").Refusal(), "guided_json invalid_type");
  EXPECT_EQ(Read(R"({"guided_regex":[]})").Refusal(), "guided_regex invalid_type");
  EXPECT_EQ(Read(R"({"guided_choice":"a"})").Refusal(), "guided_choice invalid_type");
  EXPECT_EQ(Read(R"({"guided_choice":["a",1]})").Refusal(), "guided_choice[1] invalid_type");
}

class ConstrainedHttpTest : public ApiTest {
 protected:
  static std::string Body(const std::string& extra) {
    return absl::StrCat(R"({"prompt":[1,2,3],"seed":5,"max_tokens":40)", extra, "}");
  }
};

TEST_F(ConstrainedHttpTest, AnswersMatchWholeAndStreamed) {
  Start();
  const std::string wish = R"(,"guided_regex":"( w[1-3]){4}","n":2,"logprobs":1)";
  const RawResponse whole = Post("/v1/completions", Body(wish));
  ASSERT_EQ(whole.status, 200) << whole.body;
  const nlohmann::json choices = JsonOf(whole)["choices"];
  ASSERT_EQ(choices.size(), 2U);
  std::vector<std::string> texts(2);
  const RawResponse streamed = Post("/v1/completions", Body(wish + R"(,"stream":true)"));
  for (const std::string& event : EventsOf(streamed.body)) {
    if (event == "[DONE]") continue;
    const nlohmann::json choice = nlohmann::json::parse(event)["choices"][0];
    texts[choice["index"].get<size_t>()] += choice["text"].get<std::string>();
  }
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_THAT(choices[i]["text"].get<std::string>(), MatchesRegex("( w[1-3])+"));
    EXPECT_EQ(choices[i]["text"].get<std::string>().size(), 12U);
    EXPECT_EQ(choices[i]["logprobs"]["tokens"].size(), 4U);
    EXPECT_EQ(choices[i]["finish_reason"], "stop");
    EXPECT_EQ(texts[i], choices[i]["text"].get<std::string>());
  }
  EXPECT_TRUE(WaitUntilIdle());
}

TEST_F(ConstrainedHttpTest, ErrorsComeBeforeAStreamBegins) {
  Start();
  for (const char* stream : {"", R"(,"stream":true)"}) {
    const RawResponse response =
        Post("/v1/completions", Body(absl::StrCat(R"(,"guided_json":{"not":{}})", stream)));
    EXPECT_EQ(ErrorOf(response), "400 invalid_request_error \"invalid_value\" \"guided_json\"");
    EXPECT_THAT(response.body, HasSubstr("/not: this keyword is not supported"));
  }
  EXPECT_EQ(ErrorOf(Post("/v1/completions", Body(R"(,"guided_regex":"a","guided_choice":["a"])"))),
            "400 invalid_request_error \"invalid_value\" \"guided_choice\"");
}

TEST_F(ConstrainedHttpTest, AClientThatLeavesWhileItsConstraintWaitsLeavesNothingBehind) {
  constraint_options_.num_threads = 0;
  constraint_options_.places.max_places = 1;
  Start();
  for (const char* stream : {"", R"(,"stream":true)"}) {
    RawClient client(port());
    client.Send(PostJson("/v1/completions", Body(absl::StrCat(R"(,"guided_regex":"a")", stream))));
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (constraints_->num_waiting() == 0 && absl::Now() < deadline)
      absl::SleepFor(absl::Milliseconds(2));
    EXPECT_EQ(ErrorOf(Post("/v1/completions", Body(R"(,"guided_regex":"b")"))),
              "429 server_error \"overloaded\" null");
    client.Close();
    while (constraints_->num_waiting() > 0 && absl::Now() < deadline)
      absl::SleepFor(absl::Milliseconds(2));
    EXPECT_EQ(constraints_->num_waiting(), 0);
  }
  EXPECT_EQ(engine_->Stats().num_admitted, 0);
  EXPECT_EQ(Post("/v1/completions", Body("")).status, 200);
}

}  // namespace
}  // namespace nsa
