#include "server/http/completion_shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nsa {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr char kEnvelope[] =
    R"({"id":"cmpl-1","object":"text_completion","created":7,"model":"m","system_fingerprint":"fp",)";

ResponseMeta Meta() { return {.id = "cmpl-1", .created = 7, .model = "m", .fingerprint = "fp"}; }

TEST(CompletionShape, WholeResponse) {
  const CompletionShape shape(Meta());
  const std::string body =
      shape.Body({{.text = "a\"\xC3\xA9", .finish = FinishReason::kStop},
                  {.text = "", .finish = FinishReason::kLength}},
                 {.prompt_tokens = 3, .cached_prompt_tokens = 2, .completion_tokens = 4});
  EXPECT_EQ(
      body,
      std::string(kEnvelope) +
          "\"choices\":["
          "{\"index\":0,\"text\":\"a\\\"\xC3\xA9\",\"logprobs\":null,\"finish_reason\":\"stop\"},"
          "{\"index\":1,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"length\"}],"
          "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7,"
          "\"prompt_tokens_details\":{\"cached_tokens\":2}}}");
}

TEST(CompletionShape, ChunksHaveTheSameShape) {
  CompletionShape shape(Meta());
  EXPECT_THAT(
      shape.Chunks(2, {.text = "hi"}),
      ElementsAre(std::string(kEnvelope) + R"("choices":[{"index":2,"text":"hi","logprobs":null,)"
                                           R"("finish_reason":null}]})"));
  EXPECT_THAT(
      shape.Chunks(2, {.text = "!", .finish = FinishReason::kStop}),
      ElementsAre(std::string(kEnvelope) + R"("choices":[{"index":2,"text":"!","logprobs":null,)"
                                           R"("finish_reason":"stop"}]})"));
  EXPECT_THAT(shape.Chunks(2, {.tokens = {1}}), IsEmpty());
}

TEST(CompletionShape, IncludeUsageAddsNullThenTheNumbers) {
  ResponseMeta meta = Meta();
  meta.include_usage = true;
  CompletionShape shape(meta);
  EXPECT_THAT(
      shape.Chunks(0, {.text = "x"}),
      ElementsAre(std::string(kEnvelope) + R"("choices":[{"index":0,"text":"x","logprobs":null,)"
                                           R"("finish_reason":null}],"usage":null})"));
  EXPECT_EQ(shape.UsageChunk({.prompt_tokens = 1, .completion_tokens = 2}),
            std::string(kEnvelope) +
                R"("choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,)"
                R"("prompt_tokens_details":{"cached_tokens":0}}})");
}

TEST(CompletionShape, LogprobOffsetsGoOnPerChoice) {
  ResponseMeta meta = Meta();
  meta.with_logprobs = true;
  CompletionShape shape(meta);
  const auto offsets = [&](int64_t choice, const std::string& bytes) {
    const auto chunks = shape.Chunks(choice, {.text = bytes, .logprobs = {{.bytes = bytes}}});
    return nlohmann::json::parse(chunks[0])["choices"][0]["logprobs"]["text_offset"].dump();
  };
  EXPECT_EQ(offsets(0, "abc"), "[0]");
  EXPECT_EQ(offsets(1, "de"), "[0]");
  EXPECT_EQ(offsets(0, "f"), "[3]");
  EXPECT_EQ(offsets(1, "g"), "[2]");
}

// Joined from many parts, a prompt's among them, it is what one value would be.
TEST(CompletionShape, CollectedLogprobsAreThoseOfTheParts) {
  ResponseMeta meta = Meta();
  meta.with_logprobs = true;
  const CompletionShape shape(meta);
  GenerateEvent prompt{.text = R"(","logprobs":null,")"};
  for (int i = 0; i < 1000; ++i) {
    prompt.logprobs.push_back(
        {.bytes = std::string(1, static_cast<char>('a' + i % 26)), .logprob = -0.5 * i});
  }
  const GenerateEvent last{
      .text = "z", .logprobs = {{.bytes = "z"}}, .finish = FinishReason::kStop};
  CollectedChoice choice;
  int64_t num_bytes = 0;
  shape.Collect(prompt, &choice, &num_bytes);
  shape.Collect(last, &choice, &num_bytes);
  EXPECT_EQ(num_bytes, static_cast<int64_t>(choice.text.size()) + choice.logprobs.num_bytes());
  std::vector<TokenLogprob> all = prompt.logprobs;
  all.push_back(last.logprobs.front());
  TextPosition start;
  const auto body = nlohmann::ordered_json::parse(shape.Body({choice}, {}));
  EXPECT_EQ(body["choices"][0]["logprobs"], CompletionLogprobs(all, &start));
  EXPECT_EQ(body["choices"][0]["text"], prompt.text + "z");
}

TEST(CompletionShape, RequestedLogprobsAreThereEvenIfEmpty) {
  ResponseMeta meta = Meta();
  meta.with_logprobs = true;
  const CompletionShape shape(meta);
  const auto body = nlohmann::json::parse(shape.Body({{.finish = FinishReason::kStop}}, {}));
  EXPECT_EQ(body["choices"][0]["logprobs"].dump(),
            R"({"text_offset":[],"token_logprobs":[],"tokens":[],"top_logprobs":[]})");
}

}  // namespace
}  // namespace nsa
