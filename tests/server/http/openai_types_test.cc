#include "server/http/openai_types.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/error_detail.h"

namespace nsa {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;
using Tokens = std::vector<int64_t>;
using Chat = std::vector<ChatMessage>;

// "param code" of the refusal; "" if the body is accepted.
template <typename Parsed>
std::string Refusal(const absl::StatusOr<Parsed>& parsed) {
  if (parsed.ok()) return "";
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(parsed.status().message().empty());
  const ErrorDetail detail = GetDetail(parsed.status());
  return absl::StrCat(detail.param, " ", detail.code);
}

std::string CompletionRefusal(const std::string& fields) {
  return Refusal(ParseCompletionRequest(absl::StrCat(R"({"prompt":"x",)", fields, "}")));
}
std::string ChatRefusal(const std::string& fields) {
  return Refusal(ParseChatRequest(
      absl::StrCat(R"({"messages":[{"role":"user","content":"x"}],)", fields, "}")));
}
std::string PromptRefusal(const std::string& prompt) {
  return Refusal(ParseCompletionRequest(absl::StrCat(R"({"prompt":)", prompt, "}")));
}
std::string MessagesRefusal(const std::string& messages) {
  return Refusal(ParseChatRequest(absl::StrCat(R"({"messages":)", messages, "}")));
}

TEST(ParseCompletionRequest, ReadsEveryField) {
  const auto request = ParseCompletionRequest(R"({
      "model":"m","prompt":"hello","max_tokens":7,"temperature":0.5,"top_p":0.25,"top_k":3,
      "min_p":0.125,"n":2,"stream":true,"stream_options":{"include_usage":true},"stop":["a","b"],
      "stop_token_ids":[4,5],"ignore_eos":true,"include_stop_str_in_output":true,"seed":-1,
      "logprobs":5,"user":"u","timeout":1.5})");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->stream);
  EXPECT_TRUE(request->include_usage);
  ASSERT_EQ(request->calls.size(), 1U);
  const GenerateCall& call = request->calls[0];
  EXPECT_EQ(call.model, "m");
  EXPECT_EQ(std::get<std::string>(call.input), "hello");
  EXPECT_THAT(call.max_tokens, Optional(7));
  EXPECT_THAT(call.temperature, Optional(0.5));
  EXPECT_THAT(call.top_p, Optional(0.25));
  EXPECT_THAT(call.top_k, Optional(3));
  EXPECT_THAT(call.min_p, Optional(0.125));
  EXPECT_THAT(call.n, Optional(2));
  EXPECT_THAT(call.stop, ElementsAre("a", "b"));
  EXPECT_THAT(call.stop_token_ids, ElementsAre(4, 5));
  EXPECT_TRUE(call.ignore_eos);
  EXPECT_TRUE(call.include_stop_text);
  EXPECT_THAT(call.seed, Optional(UINT64_MAX));
  EXPECT_THAT(call.num_logprobs, Optional(5));
  EXPECT_THAT(call.timeout_seconds, Optional(1.5));
}

TEST(ParseCompletionRequest, WhatIsAbsentOrNullStaysAbsent) {
  for (
      const char* body :
      {R"({"prompt":"x"})",
       R"({"prompt":"x","model":null,"max_tokens":null,"temperature":null,"top_p":null,"top_k":null,
            "min_p":null,"n":null,"stream":null,"stream_options":null,"stop":null,
            "stop_token_ids":null,"ignore_eos":null,"seed":null,"logprobs":null,"user":null,
            "timeout":null,"best_of":null,"suffix":null,"logit_bias":null,"echo":null})"}) {
    const auto request = ParseCompletionRequest(body);
    ASSERT_TRUE(request.ok()) << request.status();
    const GenerateCall& call = request->calls[0];
    EXPECT_FALSE(request->stream || request->include_usage || call.ignore_eos);
    EXPECT_EQ(call.model, "");
    EXPECT_FALSE(call.max_tokens || call.temperature || call.top_p || call.top_k || call.min_p ||
                 call.n || call.seed || call.num_logprobs || call.timeout_seconds);
    EXPECT_TRUE(call.stop.empty() && call.stop_token_ids.empty());
  }
}

TEST(ParseCompletionRequest, ReadsTheFourFormsOfPrompt) {
  // Each prompt as JSON again.
  const auto inputs = [](const std::string& prompt) {
    const auto request = ParseCompletionRequest(absl::StrCat(R"({"prompt":)", prompt, "}"));
    EXPECT_TRUE(request.ok()) << request.status();
    std::vector<std::string> list;
    for (const GenerateCall& call : request->calls) {
      const auto* text = std::get_if<std::string>(&call.input);
      list.push_back(
          text != nullptr
              ? *text
              : absl::StrCat("[", absl::StrJoin(std::get<Tokens>(call.input), ","), "]"));
    }
    return list;
  };
  EXPECT_THAT(inputs(R"("a")"), ElementsAre("a"));
  EXPECT_THAT(inputs("[1,2]"), ElementsAre("[1,2]"));
  EXPECT_THAT(inputs(R"(["a"])"), ElementsAre("a"));
  EXPECT_THAT(inputs("[[1,2]]"), ElementsAre("[1,2]"));
  EXPECT_THAT(inputs(R"(["a",[3],"b"])"), ElementsAre("a", "[3]", "b"));
}

TEST(ParseCompletionRequest, RefusesOtherPrompts) {
  EXPECT_EQ(Refusal(ParseCompletionRequest("{}")), "prompt missing_required_parameter");
  EXPECT_EQ(PromptRefusal("null"), "prompt missing_required_parameter");
  EXPECT_EQ(PromptRefusal("5"), "prompt invalid_type");
  EXPECT_EQ(PromptRefusal("{}"), "prompt invalid_type");
  EXPECT_EQ(PromptRefusal("[1,\"a\"]"), "prompt[1] invalid_type");
  EXPECT_EQ(PromptRefusal("[\"a\",1]"), "prompt[1] invalid_type");
  EXPECT_EQ(PromptRefusal("[[1],[2,null]]"), "prompt[1][1] invalid_type");
  EXPECT_EQ(PromptRefusal("[1.5]"), "prompt[0] invalid_type");
  EXPECT_EQ(PromptRefusal("[99999999999999999999]"), "prompt[0] invalid_value");
  std::string many = "[";
  for (size_t i = 0; i < kMaxPrompts; ++i) many += "\"a\",";
  EXPECT_EQ(PromptRefusal(many.substr(0, many.size() - 1) + "]"), "");
  EXPECT_EQ(PromptRefusal(many + "\"a\"]"), "prompt invalid_value");
}

TEST(ParseRequest, MaxCompletionTokensWins) {
  const std::string body =
      R"({"prompt":"x","messages":[{"role":"user","content":"x"}],"max_tokens":1,"max_completion_tokens":2})";
  EXPECT_THAT(ParseCompletionRequest(body)->calls[0].max_tokens, Optional(2));
  EXPECT_THAT(ParseChatRequest(body)->calls[0].max_tokens, Optional(2));
}

TEST(ParseRequest, FieldsAreNamedAsTheClientSpellsThem) {
  EXPECT_EQ(ChatRefusal(R"("max_completion_tokens":0)"), "max_completion_tokens invalid_value");
  EXPECT_EQ(CompletionRefusal(R"("top_logprobs":2)"), "top_logprobs invalid_value");
  EXPECT_EQ(MessagesRefusal(R"([{"role":"user","content":"x","name":5}])"),
            "messages[0].name invalid_type");
  const absl::Status best_of =
      ParseCompletionRequest(R"({"prompt":"x","n":2,"best_of":3})").status();
  EXPECT_EQ(best_of.message(), "'best_of' is 3; it must be equal to n, which is 2");
}

TEST(ParseRequest, EveryIntegerOf64BitsIsASeed) {
  const auto seed = [](const std::string& text) {
    return ParseCompletionRequest(R"({"prompt":"x","seed":)" + text + "}")->calls[0].seed;
  };
  EXPECT_THAT(seed("18446744073709551615"), Optional(UINT64_MAX));
  EXPECT_THAT(seed("9223372036854775808"), Optional(uint64_t{1} << 63));
  EXPECT_THAT(seed("-9223372036854775808"), Optional(uint64_t{1} << 63));
  EXPECT_EQ(CompletionRefusal(R"("seed":18446744073709551616)"), "seed invalid_value");
}

TEST(ParseRequest, WrongTypesAreRefusedByName) {
  for (const char* field : {"model", "user"}) {
    EXPECT_EQ(CompletionRefusal(absl::StrCat("\"", field, "\":1")),
              absl::StrCat(field, " invalid_type"));
  }
  for (const char* field :
       {"max_tokens", "max_completion_tokens", "top_k", "n", "seed", "logprobs", "best_of"}) {
    for (const char* value : {"\"1\"", "1.5", "true", "[]", "{}"}) {
      EXPECT_EQ(CompletionRefusal(absl::StrCat("\"", field, "\":", value)),
                absl::StrCat(field, " invalid_type"));
    }
  }
  for (const char* field : {"temperature", "top_p", "min_p", "timeout"}) {
    for (const char* value : {"\"1\"", "true", "[]", "{}"}) {
      EXPECT_EQ(ChatRefusal(absl::StrCat("\"", field, "\":", value)),
                absl::StrCat(field, " invalid_type"));
    }
  }
  for (const char* field : {"stream", "ignore_eos", "include_stop_str_in_output"}) {
    for (const char* value : {"\"true\"", "1", "[]", "{}"}) {
      EXPECT_EQ(ChatRefusal(absl::StrCat("\"", field, "\":", value)),
                absl::StrCat(field, " invalid_type"));
    }
  }
  EXPECT_EQ(CompletionRefusal(R"("stop":1)"), "stop invalid_type");
  EXPECT_EQ(CompletionRefusal(R"("stop":["a",1])"), "stop[1] invalid_type");
  EXPECT_EQ(CompletionRefusal(R"("stop_token_ids":["a"])"), "stop_token_ids[0] invalid_type");
  EXPECT_EQ(CompletionRefusal(R"("seed":99999999999999999999)"), "seed invalid_value");
  EXPECT_EQ(CompletionRefusal(R"("unknown":{"x":[1]})"), "");
}

TEST(ParseRequest, StreamOptionsNeedAStream) {
  EXPECT_EQ(CompletionRefusal(R"("stream_options":{"include_usage":true})"),
            "stream_options invalid_value");
  EXPECT_EQ(CompletionRefusal(R"("stream":true,"stream_options":true)"),
            "stream_options invalid_type");
  EXPECT_EQ(CompletionRefusal(R"("stream":true,"stream_options":{"include_usage":1})"),
            "stream_options.include_usage invalid_type");
  EXPECT_EQ(CompletionRefusal(R"("stream":true,"stream_options":{"other":1})"), "");
}

TEST(ParseRequest, LogprobsAreAnIntForCompletionsAndASwitchForChat) {
  EXPECT_EQ(CompletionRefusal(R"("logprobs":0)"), "");
  EXPECT_EQ(CompletionRefusal(R"("logprobs":6)"), "logprobs invalid_value");
  EXPECT_EQ(CompletionRefusal(R"("logprobs":-1)"), "logprobs invalid_value");
  EXPECT_EQ(ChatRefusal(R"("logprobs":2)"), "logprobs invalid_type");
  EXPECT_EQ(ChatRefusal(R"("logprobs":true,"top_logprobs":20)"), "");
  for (const char* count : {"2", "21", "-1"}) {
    EXPECT_EQ(ChatRefusal(absl::StrCat(R"("top_logprobs":)", count)), "top_logprobs invalid_value");
  }
  const auto chat_logprobs = [](const std::string& fields) {
    return ParseChatRequest(R"({"messages":[{"role":"user","content":"x"}],)" + fields + "}")
        ->calls[0]
        .num_logprobs;
  };
  EXPECT_EQ(chat_logprobs(R"("logprobs":false)"), std::nullopt);
  EXPECT_THAT(chat_logprobs(R"("logprobs":true)"), Optional(0));
  EXPECT_THAT(chat_logprobs(R"("logprobs":true,"top_logprobs":3)"), Optional(3));
  EXPECT_THAT(chat_logprobs(R"("logprobs":true,"top_logprobs":21)"),
              Optional(21));  // the service's
}

TEST(ParseChatRequest, ReadsMessages) {
  const auto request = ParseChatRequest(R"({"messages":[
      {"role":"developer","content":"be kind"},
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"name":"n"},
      {"role":"assistant","content":"","tool_calls":[]},
      {"role":"system","content":"s"}]})");
  ASSERT_TRUE(request.ok()) << request.status();
  const Chat& chat = std::get<Chat>(request->calls[0].input);
  std::string seen;
  for (const ChatMessage& message : chat) seen += message.role + "=" + message.content + ";";
  EXPECT_EQ(seen, "developer=be kind;user=ab;assistant=;system=s;");
}

TEST(ParseChatRequest, RefusesOtherMessages) {
  EXPECT_EQ(Refusal(ParseChatRequest("{}")), "messages missing_required_parameter");
  EXPECT_EQ(MessagesRefusal("\"x\""), "messages invalid_type");
  EXPECT_EQ(MessagesRefusal("[]"), "");  // the service refuses it
  EXPECT_EQ(MessagesRefusal("[1]"), "messages[0] invalid_type");
  EXPECT_EQ(MessagesRefusal(R"([{"content":"x"}])"), "messages[0].role missing_required_parameter");
  EXPECT_EQ(MessagesRefusal(R"([{"role":1,"content":"x"}])"), "messages[0].role invalid_type");
  EXPECT_EQ(MessagesRefusal(R"([{"role":"user","content":"x"},{"role":"user"}])"),
            "messages[1].content missing_required_parameter");
  EXPECT_EQ(MessagesRefusal(R"([{"role":"user","content":5}])"),
            "messages[0].content invalid_type");
  EXPECT_EQ(MessagesRefusal(R"([{"role":"user","content":["x"]}])"),
            "messages[0].content[0] invalid_type");
  EXPECT_EQ(MessagesRefusal(R"([{"role":"user","content":[{"type":"image_url"}]}])"),
            "messages[0].content[0].type invalid_value");
  EXPECT_EQ(MessagesRefusal(R"([{"role":"user","content":[{"text":"x"}]}])"),
            "messages[0].content[0].type missing_required_parameter");
  EXPECT_EQ(MessagesRefusal(R"([{"role":"user","content":[{"type":"text"}]}])"),
            "messages[0].content[0].text missing_required_parameter");
  EXPECT_EQ(MessagesRefusal(R"([{"role":"assistant","content":"x","tool_calls":[{}]}])"),
            "messages[0].tool_calls invalid_value");
}

TEST(ParseTokenizeRequest, TakesPromptOrMessages) {
  const auto prompt = ParseTokenizeRequest(R"({"model":"m","prompt":"x"})");
  ASSERT_TRUE(prompt.ok());
  EXPECT_EQ(prompt->model, "m");
  EXPECT_THAT(prompt->prompt, Optional(std::string("x")));
  EXPECT_TRUE(prompt->add_special_tokens);
  EXPECT_FALSE(
      ParseTokenizeRequest(R"({"prompt":"x","add_special_tokens":false})")->add_special_tokens);
  const auto chat = ParseTokenizeRequest(R"({"messages":[{"role":"user","content":"x"}]})");
  ASSERT_TRUE(chat.ok());
  EXPECT_EQ(chat->prompt, std::nullopt);
  EXPECT_EQ(chat->messages.size(), 1U);
  EXPECT_EQ(Refusal(ParseTokenizeRequest("{}")), "prompt missing_required_parameter");
  EXPECT_EQ(Refusal(ParseTokenizeRequest(R"({"prompt":[1]})")), "prompt invalid_type");
  EXPECT_EQ(Refusal(ParseTokenizeRequest(R"({"prompt":"x","messages":[]})")),
            "messages invalid_value");
  EXPECT_EQ(Refusal(ParseTokenizeRequest(R"({"prompt":"x","add_special_tokens":1})")),
            "add_special_tokens invalid_type");
}

TEST(ParseDetokenizeRequest, TakesTokens) {
  EXPECT_THAT(ParseDetokenizeRequest(R"({"tokens":[1,-2]})")->tokens, ElementsAre(1, -2));
  EXPECT_THAT(ParseDetokenizeRequest(R"({"tokens":[]})")->tokens, ElementsAre());
  EXPECT_EQ(Refusal(ParseDetokenizeRequest("{}")), "tokens missing_required_parameter");
  EXPECT_EQ(Refusal(ParseDetokenizeRequest(R"({"tokens":"1"})")), "tokens invalid_type");
  EXPECT_EQ(Refusal(ParseDetokenizeRequest(R"({"tokens":[1,"2"]})")), "tokens[1] invalid_type");
}

TEST(ParseRequest, ABodyThatIsNoObjectIsInvalidJson) {
  for (const char* body : {"", "[]", "{", "\xff"}) {
    EXPECT_EQ(Refusal(ParseCompletionRequest(body)), " invalid_json");
    EXPECT_EQ(Refusal(ParseChatRequest(body)), " invalid_json");
    EXPECT_EQ(Refusal(ParseTokenizeRequest(body)), " invalid_json");
    EXPECT_EQ(Refusal(ParseDetokenizeRequest(body)), " invalid_json");
  }
}

TEST(ParseRequest, MessagesNameTheLimit) {
  const absl::Status status = ParseCompletionRequest(R"({"prompt":"x","logprobs":6})").status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("is 6; it must be from 0 to 5"));
}

}  // namespace
}  // namespace nsa
