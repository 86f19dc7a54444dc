#include "server/http/chat_shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nsa {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

ResponseMeta Meta() {
  return {.id = "chatcmpl-1", .created = 7, .model = "m", .fingerprint = "fp"};
}

std::string Chunk(const std::string& choice) {
  return R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m",)"
         R"("system_fingerprint":"fp","choices":[)" +
         choice + "]}";
}

TEST(ChatShape, WholeResponse) {
  const ChatShape shape(Meta());
  EXPECT_EQ(shape.Body({{.text = "hi", .finish = FinishReason::kStop}},
                       {.prompt_tokens = 3, .cached_prompt_tokens = 2, .completion_tokens = 4}),
            R"({"id":"chatcmpl-1","object":"chat.completion","created":7,"model":"m",)"
            R"("system_fingerprint":"fp","choices":[{"index":0,"message":{"role":"assistant",)"
            R"("content":"hi","refusal":null},"logprobs":null,"finish_reason":"stop"}],)"
            R"("usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,)"
            R"("prompt_tokens_details":{"cached_tokens":2}}})");
}

TEST(ChatShape, RoleThenContentThenFinish) {
  ChatShape shape(Meta());
  const std::string role = Chunk(
      R"({"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null})");
  const auto content = [](const std::string& text) {
    return Chunk(R"({"index":0,"delta":{"content":")" + text +
                 R"("},"logprobs":null,"finish_reason":null})");
  };
  EXPECT_THAT(shape.Chunks(0, {.text = "a"}), ElementsAre(role, content("a")));
  EXPECT_THAT(shape.Chunks(0, {.tokens = {1}}), IsEmpty());
  EXPECT_THAT(shape.Chunks(0, {.text = "b", .finish = FinishReason::kLength}),
              ElementsAre(content("b"), Chunk(R"({"index":0,"delta":{},"logprobs":null,)"
                                              R"("finish_reason":"length"})")));
}

TEST(ChatShape, EachChoiceHasItsRole) {
  ChatShape shape(Meta());
  EXPECT_EQ(shape.Chunks(0, {.text = "a"}).size(), 2U);
  EXPECT_EQ(shape.Chunks(1, {.finish = FinishReason::kStop}).size(), 2U);
  EXPECT_EQ(shape.Chunks(0, {.text = "b"}).size(), 1U);
}

TEST(ChatShape, LogprobsComeWithTheContent) {
  ResponseMeta meta = Meta();
  meta.with_logprobs = true;
  ChatShape shape(meta);
  const auto chunks = shape.Chunks(0, {.logprobs = {{.bytes = "\xC3", .logprob = -1}}});
  ASSERT_EQ(chunks.size(), 2U);
  const auto choice = nlohmann::json::parse(chunks[1])["choices"][0];
  EXPECT_EQ(choice["delta"].dump(), R"({"content":""})");
  EXPECT_EQ(choice["logprobs"]["content"][0]["bytes"].dump(), "[195]");
  const auto body = nlohmann::json::parse(shape.Body({{}}, {}));
  EXPECT_EQ(body["choices"][0]["logprobs"].dump(), R"({"content":[],"refusal":null})");
}

}  // namespace
}  // namespace nsa
