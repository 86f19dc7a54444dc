#include <gtest/gtest.h>

#include "tests/server/http/api_fixture.h"

namespace nsa {
namespace {

class TokenizeTest : public ApiTest {
 protected:
  void SetUp() override { Start(); }
};

TEST_F(TokenizeTest, PromptToTokens) {
  EXPECT_EQ(Post("/tokenize", R"({"prompt":"w1 w22"})").body,
            R"({"tokens":[98,1,22],"count":3,"max_model_len":512})");
  EXPECT_EQ(Post("/tokenize", R"({"prompt":"w1 w22","add_special_tokens":false})").body,
            R"({"tokens":[1,22],"count":2,"max_model_len":512})");
  EXPECT_EQ(Post("/tokenize", R"({"prompt":"","add_special_tokens":false})").body,
            R"({"tokens":[],"count":0,"max_model_len":512})");
}

TEST_F(TokenizeTest, MessagesToTokens) {
  // "user w7 \n assistant", other words being their length.
  EXPECT_EQ(Post("/tokenize", R"({"messages":[{"role":"user","content":"w7"}]})").body,
            R"({"tokens":[4,7,9],"count":3,"max_model_len":512})");
}

TEST_F(TokenizeTest, TokensToPrompt) {
  EXPECT_EQ(Post("/detokenize", R"({"tokens":[98,1,90,91]})").body, "{\"prompt\":\" w1\xC3\xA9\"}");
  EXPECT_EQ(Post("/detokenize", R"({"tokens":[]})").body, R"({"prompt":""})");
}

TEST_F(TokenizeTest, RefusalsFollowTheTable) {
  EXPECT_EQ(ErrorOf(Post("/tokenize", "{}")),
            R"(400 invalid_request_error "missing_required_parameter" "prompt")");
  EXPECT_EQ(ErrorOf(Post("/tokenize", R"({"prompt":"x","model":"y"})")),
            R"(404 invalid_request_error "model_not_found" "model")");
  EXPECT_EQ(ErrorOf(Post("/tokenize", "{\"prompt\":\"\xC3\"}")),
            R"(400 invalid_request_error "invalid_json" null)");
  EXPECT_EQ(ErrorOf(Post("/detokenize", R"({"tokens":[100]})")),
            R"(400 invalid_request_error "invalid_value" "tokens")");
  EXPECT_EQ(ErrorOf(Post("/detokenize", R"({"tokens":[1],"model":"y"})")),
            R"(404 invalid_request_error "model_not_found" "model")");
}

}  // namespace
}  // namespace nsa
