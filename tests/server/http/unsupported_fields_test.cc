#include "server/http/unsupported_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/error_detail.h"

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

}  // namespace
}  // namespace nsa
