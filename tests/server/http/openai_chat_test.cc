#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "engine/text/chat_prompt.h"
#include "tests/server/http/api_fixture.h"

namespace nsa {
namespace {

using ::testing::StartsWith;

class ChatTest : public ApiTest {
 protected:
  void SetUp() override { Start(); }
  RawResponse Chat(const std::string& fields) {
    return Post("/v1/chat/completions",
                absl::StrCat(R"({"messages":[{"role":"user","content":"w5 w6"}],)", fields, "}"));
  }
  // What the template and the fake model make of that message.
  std::string ExpectedAnswer(int64_t max_tokens, uint64_t seed) {
    return Expected(*EncodeChat(*chat_template_, tokenizer_, {{"user", "w5 w6"}}), max_tokens,
                    seed);
  }
};

TEST_F(ChatTest, AnswersAMessage) {
  const RawResponse response = Chat(R"("model":"tiny/test","max_tokens":8,"seed":5)");
  ASSERT_EQ(response.status, 200) << response.body;
  const nlohmann::json json = JsonOf(response);
  EXPECT_THAT(json["id"].get<std::string>(), StartsWith("chatcmpl-"));
  EXPECT_EQ(json["object"], "chat.completion");
  const nlohmann::json& choice = json["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["message"]["content"], ExpectedAnswer(8, 5));
  EXPECT_EQ(choice["message"]["refusal"], nullptr);
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(json["usage"]["completion_tokens"], 8);
}

TEST_F(ChatTest, StreamsRoleContentFinishDone) {
  const RawResponse response = Chat(R"("max_tokens":8,"seed":5,"n":2,"stream":true)");
  const std::vector<std::string> events = EventsOf(response.body);
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events.back(), "[DONE]");
  std::vector<std::string> kinds(2), text(2);
  std::set<std::string> ids;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const nlohmann::json chunk = nlohmann::json::parse(events[i]);
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    ids.insert(chunk["id"].get<std::string>() + chunk["created"].dump());
    ASSERT_EQ(chunk["choices"].size(), 1U);
    const nlohmann::json& choice = chunk["choices"][0];
    const auto index = choice["index"].get<size_t>();
    const nlohmann::json& delta = choice["delta"];
    if (delta.contains("role")) {
      EXPECT_EQ(delta.dump(), R"({"content":"","role":"assistant"})");
      kinds[index] += "r";
    } else if (!choice["finish_reason"].is_null()) {
      EXPECT_EQ(delta.dump(), "{}");
      kinds[index] += "f";
    } else {
      if (!kinds[index].ends_with("c")) kinds[index] += "c";
      text[index] += delta["content"].get<std::string>();
    }
  }
  EXPECT_EQ(ids.size(), 1U);
  EXPECT_EQ(kinds, (std::vector<std::string>{"rcf", "rcf"}));
  EXPECT_EQ(text, (std::vector<std::string>{ExpectedAnswer(8, 5), ExpectedAnswer(8, 6)}));
}

TEST_F(ChatTest, EveryEventIsValidUtf8) {
  // Over these seeds the model emits bytes of characters apart.
  bool saw_replacement = false;
  for (int seed = 0; seed < 20; ++seed) {
    const std::string fields = absl::StrCat(R"("max_tokens":60,"ignore_eos":true,"seed":)", seed);
    const std::string whole = JsonOf(Chat(fields))["choices"][0]["message"]["content"];
    saw_replacement |= whole.find("\xEF\xBF\xBD") != std::string::npos;
    std::string streamed;
    for (const std::string& event : EventsOf(Chat(fields + R"(,"stream":true)").body)) {
      EXPECT_TRUE(IsValidUtf8(event));
      if (event == "[DONE]") continue;
      const auto delta = nlohmann::json::parse(event)["choices"][0]["delta"];
      if (delta.contains("content")) streamed += delta["content"].get<std::string>();
    }
    EXPECT_EQ(streamed, whole);
  }
  EXPECT_TRUE(saw_replacement);
}

TEST_F(ChatTest, Logprobs) {
  const nlohmann::json json =
      JsonOf(Chat(R"("max_tokens":4,"ignore_eos":true,"logprobs":true,"top_logprobs":3)"));
  const nlohmann::json& content = json["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 4U) << json.dump();
  for (const nlohmann::json& token : content) {
    EXPECT_EQ(token["top_logprobs"].size(), 3U);
    EXPECT_TRUE(token["bytes"].is_array());
    EXPECT_LE(token["logprob"].get<double>(), 0);
  }
}

TEST_F(ChatTest, RefusalsFollowTheTable) {
  const auto error = [&](const std::string& body) {
    return ErrorOf(Post("/v1/chat/completions", body));
  };
  EXPECT_EQ(error("{}"), R"(400 invalid_request_error "missing_required_parameter" "messages")");
  EXPECT_EQ(error(R"({"messages":[]})"), R"(400 invalid_request_error "invalid_value" "messages")");
  EXPECT_EQ(error(R"({"messages":[{"role":"tool","content":"x"}]})"),
            R"(400 invalid_request_error "invalid_value" "messages[0].role")");
  EXPECT_EQ(error(R"({"messages":[{"role":"user","content":"x"}],"tools":[{}]})"),
            R"(400 invalid_request_error "invalid_value" "tools")");
  EXPECT_EQ(error(R"({"messages":[{"role":"user","content":"x"}],"model":"gpt"})"),
            R"(404 invalid_request_error "model_not_found" "model")");
}

}  // namespace
}  // namespace nsa
