#include "server/http/unsupported_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "server/error_detail.h"
#include "tests/server/http/api_fixture.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;

absl::Status Check(const std::string& body) {
  const auto document = ParseJsonObject(body);
  EXPECT_TRUE(document.ok()) << body;
  JsonFields fields(*document);
  RefuseUnsupportedFields(&fields);
  return fields.status();
}

TEST(UnsupportedFields, NeutralValuesPass) {
  for (const char* field :
       {R"("suffix":"")", R"("tools":[])", R"("tool_choice":"none")", R"("tool_choice":"auto")",
        R"("functions":[])", R"("function_call":"auto")", R"("modalities":["text"])",
        R"("audio":null)", R"("prediction":null)", R"("add_generation_prompt":true)",
        R"("continue_final_message":false)", R"("return_token_ids":false)",
        R"("skip_special_tokens":true)", R"("bad_words":[])", R"("store":true)"}) {
    EXPECT_TRUE(Check(std::string("{") + field + "}").ok()) << field;
  }
}

TEST(UnsupportedFields, OthersAreRefusedByName) {
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{
           {"suffix", "\"x\""},
           {"tools", "[{}]"},
           {"tool_choice", "\"required\""},
           {"tool_choice", "{}"},
           {"functions", "[{}]"},
           {"function_call", R"({"name":"f"})"},
           {"modalities", R"(["text","audio"])"},
           {"audio", "{}"},
           {"web_search_options", "{}"},
           {"prediction", R"({"type":"content","content":"x"})"},
           {"chat_template", "\"x\""},
           {"add_generation_prompt", "false"},
           {"continue_final_message", "true"},
           {"guided_grammar", "\"x\""},
           {"structured_outputs", "{}"},
           {"return_token_ids", "true"},
           {"prompt_logprobs", "1"},
           {"bad_words", R"(["a"])"},
           {"allowed_token_ids", "[1]"},
           {"truncate_prompt_tokens", "1"},
           {"use_beam_search", "true"},
           {"skip_special_tokens", "false"}}) {
    const absl::Status status = Check("{\"" + name + "\":" + value + "}");
    EXPECT_EQ(GetDetail(status).param, name) << value;
    EXPECT_EQ(GetDetail(status).code, "invalid_value");
    EXPECT_THAT(std::string(status.message()), HasSubstr("all that is allowed is"));
  }
}

// --strict
class StrictTest : public ApiTest {
 protected:
  StrictTest() { api_.unknown_fields = UnknownFields::kRefused; }
  void SetUp() override { Start(); }
};

TEST_F(StrictTest, UnknownFieldsAreRefusedEverywhere) {
  const struct {
    const char* path;
    const char* body;
    const char* field;
  } cases[] = {
      {"/v1/completions", R"({"prompt":"w1","temprature":1})", "temprature"},
      {"/v1/completions", R"({"prompt":"w1","messages":[]})", "messages"},
      {"/v1/completions", R"({"prompt":"w1","x":null})", "x"},
      {"/v1/completions", R"({"prompt":"w1","stream":true,"stream_options":{"x":1}})",
       "stream_options.x"},
      {"/v1/chat/completions", R"({"messages":[{"role":"user","content":"w1"}],"prompt":"w1"})",
       "prompt"},
      {"/v1/chat/completions", R"({"messages":[{"role":"user","content":"w1","x":1}]})",
       "messages[0].x"},
      {"/v1/chat/completions",
       R"({"messages":[{"role":"user","content":[{"type":"text","text":"w1","x":1}]}]})",
       "messages[0].content[0].x"},
      {"/v1/chat/completions",
       R"({"messages":[{"role":"user","content":"w1"}],"response_format":{"type":"text","x":1}})",
       "response_format.x"},
      {"/tokenize", R"({"prompt":"w1","x":1})", "x"},
      {"/detokenize", R"({"tokens":[1],"x":1})", "x"},
  };
  for (const auto& [path, body, field] : cases) {
    EXPECT_EQ(ErrorOf(Post(path, body)),
              absl::StrCat("400 invalid_request_error \"invalid_value\" \"", field, "\""))
        << body;
  }
  EXPECT_EQ(engine_->Stats().num_admitted, 0);
}

TEST_F(StrictTest, KnownFieldsAreNot) {
  EXPECT_EQ(Post("/v1/completions",
                 R"({"model":"tiny/test","prompt":"w1","max_tokens":1,"temperature":0,"top_p":1,)"
                 R"("top_k":0,"min_p":0,"presence_penalty":0,"frequency_penalty":0,"n":1,)"
                 R"("repetition_penalty":1,"logit_bias":{"1":1},"priority":0,"min_tokens":0,)"
                 R"("echo":false,"best_of":1,"seed":1,"stop":"x","stop_token_ids":[1],)"
                 R"("ignore_eos":true,"include_stop_str_in_output":false,"logprobs":1,)"
                 R"("stream":true,"stream_options":{"include_usage":true},"timeout":60,)"
                 R"("cache_salt":"s","user":"u","suffix":"","tools":[],"guided_choice":["w1"]})")
                .status,
            200);
  EXPECT_EQ(Post("/v1/chat/completions",
                 R"({"messages":[{"role":"user","content":[{"type":"text","text":"w1"}],)"
                 R"("name":"n","tool_calls":[]}],"max_completion_tokens":1,"logprobs":true,)"
                 R"("top_logprobs":1,"response_format":{"type":"text"}})")
                .status,
            200);
  EXPECT_EQ(
      Post("/tokenize", R"({"model":"tiny/test","prompt":"w1","add_special_tokens":true})").status,
      200);
  EXPECT_EQ(Post("/detokenize", R"({"model":"tiny/test","tokens":[1]})").status, 200);
}

}  // namespace
}  // namespace nsa
