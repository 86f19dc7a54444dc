#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/server/http/api_fixture.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class CompletionsTest : public ApiTest {
 protected:
  void SetUp() override { Start(); }
  RawResponse Complete(const std::string& fields) {
    return Post("/v1/completions", absl::StrCat("{", fields, "}"));
  }
};

TEST_F(CompletionsTest, AnswersAPromptOfTokens) {
  const RawResponse response = Complete(R"("prompt":[1,2,3],"max_tokens":8,"seed":5)");
  ASSERT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(response.headers.at("content-type"), "application/json");
  const nlohmann::json json = JsonOf(response);
  EXPECT_THAT(json["id"].get<std::string>(), StartsWith("cmpl-"));
  EXPECT_EQ(json["object"], "text_completion");
  EXPECT_EQ(json["model"], "tiny/test");
  EXPECT_EQ(json["system_fingerprint"], api_.fingerprint);
  EXPECT_NEAR(json["created"].get<double>(), absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()),
              60);
  ASSERT_EQ(json["choices"].size(), 1U);
  EXPECT_EQ(json["choices"][0]["text"], Expected({1, 2, 3}, 8, 5));
  EXPECT_EQ(json["choices"][0]["index"], 0);
  EXPECT_EQ(json["choices"][0]["logprobs"], nullptr);
  EXPECT_EQ(json["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(json["usage"].dump(),
            R"({"completion_tokens":8,"prompt_tokens":3,)"
            R"("prompt_tokens_details":{"cached_tokens":0},"total_tokens":11})");
}

TEST_F(CompletionsTest, AStringGetsSpecialTokensAndSixteenByDefault) {
  const nlohmann::json json = JsonOf(Complete(R"("prompt":"w1 w2","seed":2,"ignore_eos":true)"));
  EXPECT_EQ(json["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(json["usage"]["completion_tokens"], 16);
}

TEST_F(CompletionsTest, StreamsTheSameTextByteForByte) {
  const RawResponse response =
      Complete(R"("prompt":[1,2,3],"max_tokens":30,"seed":6,"stream":true)");
  ASSERT_EQ(response.status, 200) << response.body;
  EXPECT_TRUE(response.complete);
  EXPECT_EQ(response.headers.at("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(response.headers.at("cache-control"), "no-cache");
  EXPECT_EQ(response.headers.at("x-accel-buffering"), "no");
  const std::vector<std::string> events = EventsOf(response.body);
  ASSERT_GE(events.size(), 2U);
  EXPECT_EQ(events.back(), "[DONE]");
  const nlohmann::json first = nlohmann::json::parse(events[0]);
  std::string text;
  int num_finished = 0;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const nlohmann::json chunk = nlohmann::json::parse(events[i]);
    EXPECT_EQ(chunk["id"], first["id"]);
    EXPECT_EQ(chunk["created"], first["created"]);
    EXPECT_EQ(chunk["object"], "text_completion");
    EXPECT_FALSE(chunk.contains("usage"));
    text += chunk["choices"][0]["text"].get<std::string>();
    num_finished += chunk["choices"][0]["finish_reason"].is_null() ? 0 : 1;
  }
  EXPECT_EQ(text, Expected({1, 2, 3}, 30, 6));
  EXPECT_EQ(num_finished, 1);
}

TEST_F(CompletionsTest, UsageIsTheLastChunkIfAskedFor) {
  const RawResponse response = Complete(
      R"("prompt":[1],"max_tokens":3,"ignore_eos":true,"stream":true,"stream_options":{"include_usage":true})");
  const std::vector<std::string> events = EventsOf(response.body);
  ASSERT_GE(events.size(), 3U);
  for (size_t i = 0; i + 2 < events.size(); ++i)
    EXPECT_THAT(events[i], HasSubstr(R"("usage":null)"));
  EXPECT_THAT(
      events[events.size() - 2],
      HasSubstr(R"("choices":[],"usage":{"prompt_tokens":1,"completion_tokens":3,"total_tokens":4,)"
                R"("prompt_tokens_details":{"cached_tokens":0}})"));
}

TEST_F(CompletionsTest, ManyPromptsAndChoicesAreIndexedInOrder) {
  const std::string fields = R"("prompt":[[1,2],[3],[4,5,6]],"n":2,"max_tokens":5,"seed":9)";
  const nlohmann::json json = JsonOf(Complete(fields));
  ASSERT_EQ(json["choices"].size(), 6U) << json.dump();
  const std::vector<std::vector<int32_t>> prompts = {{1, 2}, {3}, {4, 5, 6}};
  std::vector<std::string> expected;
  for (size_t i = 0; i < 6; ++i) {
    expected.push_back(Expected(prompts[i / 2], 5, 9 + i % 2));
    EXPECT_EQ(json["choices"][i]["index"], i);
    EXPECT_EQ(json["choices"][i]["text"], expected[i]);
  }
  EXPECT_EQ(json["usage"]["prompt_tokens"], 6);

  std::vector<std::string> streamed(6);
  for (const std::string& event : EventsOf(Complete(fields + R"(,"stream":true)").body)) {
    if (event == "[DONE]") continue;
    const nlohmann::json choice = nlohmann::json::parse(event)["choices"][0];
    streamed[choice["index"].get<size_t>()] += choice["text"].get<std::string>();
  }
  EXPECT_EQ(streamed, expected);
}

TEST_F(CompletionsTest, AListOfOneIsItsElement) {
  const std::string rest = R"(,"max_tokens":4,"seed":1)";
  const auto text = [&](const std::string& prompt) {
    return JsonOf(Complete(R"("prompt":)" + prompt + rest))["choices"][0]["text"];
  };
  EXPECT_EQ(text(R"(["w1 w2"])"), text(R"("w1 w2")"));
  EXPECT_EQ(text("[[7,8]]"), text("[7,8]"));
  EXPECT_EQ(text("[7,8]"), Expected({7, 8}, 4, 1));
}

TEST_F(CompletionsTest, LogprobsAreParallelLists) {
  const nlohmann::json json =
      JsonOf(Complete(R"("prompt":[1],"max_tokens":6,"ignore_eos":true,"seed":3,"logprobs":2)"));
  const nlohmann::json& choice = json["choices"][0];
  const nlohmann::json& logprobs = choice["logprobs"];
  ASSERT_EQ(logprobs["tokens"].size(), 6U) << json.dump();
  for (size_t i = 0; i < 6; ++i) {
    const std::string token = logprobs["tokens"][i];
    EXPECT_TRUE(logprobs["top_logprobs"][i].contains(token));
    EXPECT_GE(logprobs["top_logprobs"][i].size(), 2U);
    EXPECT_LE(logprobs["top_logprobs"][i].size(), 3U);
    EXPECT_LE(logprobs["token_logprobs"][i].get<double>(), 0);
  }
  EXPECT_EQ(logprobs["text_offset"][0], 0);
}

// As lm-eval asks: the arrays cover prompt and answer, and the first entry is null.
TEST_F(CompletionsTest, EchoBringsThePromptWithItsLogprobs) {
  const nlohmann::json choice = JsonOf(Complete(
      R"("prompt":[1,2,3],"max_tokens":1,"seed":5,"echo":true,"logprobs":1)"))["choices"][0];
  const nlohmann::json& logprobs = choice["logprobs"];
  ASSERT_EQ(logprobs["tokens"].size(), 4U) << choice.dump();
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
  std::string text;
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(logprobs["text_offset"][i], text.size());
    text += logprobs["tokens"][i];
    if (i == 0) continue;
    const double logprob = logprobs["token_logprobs"][i];
    EXPECT_EQ(logprobs["top_logprobs"][i][logprobs["tokens"][i]].get<double>(), logprob);
  }
  const nlohmann::json plain =
      JsonOf(Complete(R"("prompt":[1,2,3],"max_tokens":1,"seed":5)"))["choices"][0];
  const nlohmann::json echoed =
      JsonOf(Complete(R"("prompt":[1,2,3],"max_tokens":1,"seed":5,"echo":true)"))["choices"][0];
  EXPECT_TRUE(echoed["logprobs"].is_null());
  const std::string echoed_text = echoed["text"], plain_text = plain["text"];
  EXPECT_GT(echoed_text.size(), plain_text.size());
  EXPECT_TRUE(echoed_text.ends_with(plain_text));
  EXPECT_EQ(choice["text"], echoed_text);
}

TEST_F(CompletionsTest, EchoOpensAStream) {
  const std::string body =
      Complete(R"("prompt":[1,2,3],"max_tokens":2,"seed":5,"echo":true,"stream":true)").body;
  const size_t first_event = body.find("data: ");
  ASSERT_NE(first_event, std::string::npos);
  const nlohmann::json first = nlohmann::json::parse(
      body.substr(first_event + 6, body.find('\n', first_event) - first_event - 6));
  const nlohmann::json echoed =
      JsonOf(Complete(R"("prompt":[1,2,3],"max_tokens":1,"echo":true)"))["choices"][0];
  const std::string prompt_text = first["choices"][0]["text"];
  EXPECT_FALSE(prompt_text.empty());
  EXPECT_TRUE(echoed["text"].get<std::string>().starts_with(prompt_text));
}

TEST_F(CompletionsTest, AStopStringIsCut) {
  const std::string whole = Expected({1, 2}, 20, 4);
  ASSERT_GT(whole.size(), 12U);
  const std::string stop = whole.substr(8, 3);
  const std::string kept = whole.substr(0, whole.find(stop));
  const std::string fields =
      absl::StrCat(R"("prompt":[1,2],"max_tokens":20,"seed":4,"stop":")", stop, "\"");
  const nlohmann::json choice = JsonOf(Complete(fields))["choices"][0];
  EXPECT_EQ(choice["text"], kept);
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(
      JsonOf(Complete(fields + R"(,"include_stop_str_in_output":true)"))["choices"][0]["text"],
      kept + stop);
  EXPECT_TRUE(WaitUntilIdle());
}

TEST_F(CompletionsTest, RefusalsFollowTheTable) {
  const std::pair<std::string, std::string> cases[] = {
      {R"("prompt":"x","model":"other")", R"(404 invalid_request_error "model_not_found" "model")"},
      {R"("max_tokens":1)", R"(400 invalid_request_error "missing_required_parameter" "prompt")"},
      {R"("prompt":"x","max_tokens":"1")",
       R"(400 invalid_request_error "invalid_type" "max_tokens")"},
      {R"("prompt":"x","max_tokens":0)",
       R"(400 invalid_request_error "invalid_value" "max_tokens")"},
      {R"("prompt":"x","temperature":2.5)",
       R"(400 invalid_request_error "invalid_value" "temperature")"},
      {R"("prompt":"x","n":129)", R"(400 invalid_request_error "invalid_value" "n")"},
      {R"("prompt":"x","n":-1)", R"(400 invalid_request_error "invalid_value" "n")"},
      {R"("prompt":[100])", R"(400 invalid_request_error "invalid_value" "prompt")"},
      {R"("prompt":[-1])", R"(400 invalid_request_error "invalid_value" "prompt")"},
      {R"("prompt":"")", R"(400 invalid_request_error "invalid_value" "prompt")"},
      {R"("prompt":[])", R"(400 invalid_request_error "invalid_value" "prompt")"},
      {R"("prompt":"x","echo":1)", R"(400 invalid_request_error "invalid_type" "echo")"},
      {R"("prompt":"x","logit_bias":{"a":1})",
       R"(400 invalid_request_error "invalid_value" "logit_bias")"},
      {R"("prompt":"x","logit_bias":{"1":"a"})",
       R"(400 invalid_request_error "invalid_type" "logit_bias.1")"},
      {R"("prompt":"x","logit_bias":{"100":1})",
       R"(400 invalid_request_error "invalid_value" "logit_bias")"},
      {R"("prompt":"x","presence_penalty":2.5)",
       R"(400 invalid_request_error "invalid_value" "presence_penalty")"},
      {R"("prompt":"x","repetition_penalty":0)",
       R"(400 invalid_request_error "invalid_value" "repetition_penalty")"},
      {R"("prompt":"x","min_tokens":17)",
       R"(400 invalid_request_error "invalid_value" "min_tokens")"},
      {R"("prompt":"x","stream":true,"temperature":-1)",
       R"(400 invalid_request_error "invalid_value" "temperature")"},
  };
  for (const auto& [fields, error] : cases) EXPECT_EQ(ErrorOf(Complete(fields)), error) << fields;
}

TEST_F(CompletionsTest, TooLongNamesBothNumbers) {
  const RawResponse response = Complete(R"("prompt":[1,2,3],"max_tokens":510)");
  EXPECT_THAT(ErrorOf(response),
              StartsWith("400 invalid_request_error \"context_length_exceeded\""));
  const std::string message = JsonOf(response)["error"]["message"];
  EXPECT_THAT(message, HasSubstr("has 3 tokens and 510 are to be generated"));
  EXPECT_THAT(message, HasSubstr("at most 512 are allowed"));
  EXPECT_EQ(
      Complete(R"("prompt":[1,2,3],"max_tokens":509,"stop_token_ids":[1,2,3,4,5,6,7,8,9])").status,
      200);
}

TEST_F(CompletionsTest, OneBadPromptRefusesAllAndCancelsTheOthers) {
  EXPECT_EQ(ErrorOf(Complete(R"("prompt":[[1],[2],[100]],"max_tokens":400,"ignore_eos":true)")),
            R"(400 invalid_request_error "invalid_value" "prompt")");
  EXPECT_TRUE(WaitUntilIdle());
}

}  // namespace
}  // namespace nsa
