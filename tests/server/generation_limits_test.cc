// What the service refuses before it does the work: texts by their bytes, lists as a whole.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/error_detail.h"
#include "server/generation_service.h"
#include "tests/support/service_harness.h"

namespace nsa {
namespace {

using testing::HasSubstr;

class GenerationLimitsTest : public testing::Test {
 protected:
  absl::Status Refusal(const GenerateCall& call) {
    return harness_.service.Generate(call, std::make_shared<CollectingObserver>()).status();
  }

  ServiceHarness harness_;
};

TEST_F(GenerationLimitsTest, TextsThatCannotFitAreRefusedByTheirBytes) {
  const int64_t max_tokens = harness_.service.model().max_request_tokens;
  const int64_t max_bytes = max_tokens * FakeTokenizer::kMaxTokenBytes;
  const std::string expected = absl::StrCat(max_bytes + 1, " bytes; at most ", max_tokens,
                                            " tokens are allowed, which hold at most ", max_bytes);
  const std::string content(max_bytes + 1 - 4, 'x');  // the role counts
  const std::vector<ChatMessage> crowd(max_tokens + 1, ChatMessage{"user", ""});
  const absl::Status text = Refusal({.input = std::string(max_bytes + 1, 'x')});
  const absl::Status chat = Refusal({.input = std::vector<ChatMessage>{{"user", content}}});
  const absl::Status many = Refusal({.input = crowd});
  for (const absl::Status& status : {text, chat, many}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(GetDetail(status).code, "context_length_exceeded");
  }
  EXPECT_THAT(std::string(text.message()), HasSubstr("the prompt has " + expected));
  EXPECT_THAT(std::string(chat.message()), HasSubstr("the messages have " + expected));
  EXPECT_THAT(std::string(many.message()), HasSubstr(absl::StrCat(max_tokens + 1, " messages")));
  EXPECT_EQ(GetDetail(text).param, "prompt");
  EXPECT_EQ(GetDetail(chat).param, "messages");
}

TEST_F(GenerationLimitsTest, TokenizingAndDetokenizingAreBounded) {
  constexpr size_t kMaxBytes = 1 << 20;
  constexpr size_t kMaxTokens = 1 << 18;
  const GenerationService& service = harness_.service;
  EXPECT_TRUE(service.Tokenize("", std::string(kMaxBytes, 'x'), true).ok());
  const absl::Status text = service.Tokenize("", std::string(kMaxBytes + 1, 'x'), true).status();
  EXPECT_EQ(text.message(), "the prompt has 1048577 bytes; at most 1048576 are tokenized");
  EXPECT_EQ(GetDetail(text).code, "invalid_value");
  const absl::Status chat =
      service.TokenizeChat("", {{"user", std::string(kMaxBytes - 3, 'x')}}).status();
  EXPECT_EQ(chat.message(), "the messages have 1048577 bytes; at most 1048576 are tokenized");
  EXPECT_TRUE(service.Detokenize("", std::vector<int64_t>(kMaxTokens, 'x')).ok());
  const absl::Status tokens =
      service.Detokenize("", std::vector<int64_t>(kMaxTokens + 1, 'x')).status();
  EXPECT_EQ(tokens.message(), "tokens has 262145 entries; at most 262144 are detokenized");
  EXPECT_EQ(GetDetail(tokens).param, "tokens");
}

TEST_F(GenerationLimitsTest, CallsThatBelongTogetherArePreparedAllOrNone) {
  const std::vector<GenerateCall> calls = {GenerateCall{.input = "hi"}, {.input = ""}};
  const auto prepared = harness_.service.Prepare(calls);
  EXPECT_EQ(prepared.status().message(), "the prompt is empty");
  EXPECT_EQ(harness_.engine.Stats().num_admitted, 0);
}

TEST_F(GenerationLimitsTest, TimeRunsSinceTheCallArrived) {
  GenerateCall call = GenerateCall{.input = "hi"};
  call.timeout_seconds = 100;
  const std::vector<GenerateCall> calls = {GenerateCall{.input = "hi"}, call};
  const absl::Time now = absl::Now();
  const absl::Status late = harness_.service.Prepare(calls, now - absl::Seconds(100)).status();
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(GetDetail(late).code, "timeout");
  const auto prepared = harness_.service.Prepare(calls, now - absl::Seconds(50));
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_EQ(prepared->back().request.arrived, now - absl::Seconds(50));
  EXPECT_EQ(prepared->back().request.deadline, now + absl::Seconds(50));
  EXPECT_EQ(prepared->front().request.deadline, absl::InfiniteFuture());
}

TEST_F(GenerationLimitsTest, MoreChoicesThanTheQueueHoldsAreAnInvalidRequest) {
  const int64_t limit = AdmissionLimits().max_queued_requests;
  GenerateCall call = GenerateCall{.input = "hi"};
  call.n = 100;
  const std::vector<GenerateCall> calls(limit / 100 + 1, call);
  const absl::Status status = harness_.service.Prepare(calls).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetDetail(status).code, "invalid_value");
  EXPECT_EQ(GetDetail(status).param, "prompt");
  EXPECT_THAT(
      std::string(status.message()),
      HasSubstr(absl::StrCat(calls.size() * 100, " choices are asked for; at most ", limit)));
}

TEST_F(GenerationLimitsTest, ALostDeviceEndsCallsAndRefusesNewOnes) {
  harness_.executor.set_lost(absl::InternalError("cuda:0 at 0xdead"));
  const auto observer = std::make_shared<CollectingObserver>();
  const auto handle = harness_.service.Generate({.input = "hi"}, observer);
  ASSERT_TRUE(handle.ok()) << handle.status();
  observer->Wait();
  EXPECT_EQ(observer->last().error.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(GetDetail(observer->last().error).code, "internal_error");
  EXPECT_THAT(std::string(observer->last().error.message()), testing::Not(HasSubstr("cuda")));
  EXPECT_TRUE(harness_.BecomesIdle());
  EXPECT_EQ(Refusal({.input = "hi"}).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace nsa
