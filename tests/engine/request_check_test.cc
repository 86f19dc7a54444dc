#include "engine/request_check.h"

#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;

constexpr ExecutorLimits kLimits{.page_tokens = 4,
                                 .num_pages = 5,
                                 .max_num_seqs = 1,
                                 .max_chunk_tokens = 4,
                                 .max_batched_tokens = 4,
                                 .vocab_size = 10};

Request MakeRequest(int64_t num_prompt_tokens, int64_t max_tokens) {
  return {.prompt = std::vector<int32_t>(num_prompt_tokens, 1), .max_tokens = max_tokens};
}

std::string MessageOf(const Request& request, int64_t max_model_tokens = 0) {
  const absl::Status status = CheckRequest(request, kLimits, max_model_tokens);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(RequestCheckTest, TheLongestRequestIsBoundByCacheAndModel) {
  EXPECT_EQ(MaxRequestTokens(kLimits, 0), 20);
  EXPECT_EQ(MaxRequestTokens(kLimits, 16), 16);
  EXPECT_EQ(MaxRequestTokens(kLimits, 64), 20);
}

TEST(RequestCheckTest, AcceptsUpToTheLimitAndNamesBothNumbersBeyond) {
  EXPECT_TRUE(CheckRequest(MakeRequest(12, 8), kLimits, 0).ok());
  EXPECT_TRUE(CheckRequest(MakeRequest(12, 4), kLimits, 16).ok());
  EXPECT_THAT(MessageOf(MakeRequest(12, 9)), AllOf(HasSubstr("12 tokens and max_tokens 9"),
                                                   HasSubstr("20 tokens (5 pages of 4)")));
  EXPECT_THAT(MessageOf(MakeRequest(12, 5), 16),
              AllOf(HasSubstr("12 tokens and max_tokens 5"), HasSubstr("the model's 16 tokens")));
  EXPECT_THAT(MessageOf(MakeRequest(21, 1), 64), HasSubstr("20 tokens (5 pages of 4)"));
}

TEST(RequestCheckTest, AHugeMaxTokensDoesNotOverflow) {
  EXPECT_THAT(MessageOf(MakeRequest(1, std::numeric_limits<int64_t>::max())),
              HasSubstr("max_tokens 9223372036854775807"));
}

TEST(RequestCheckTest, RefusesAnEmptyPromptAndNothingToGenerate) {
  EXPECT_THAT(MessageOf(MakeRequest(0, 1)), HasSubstr("0 tokens"));
  EXPECT_THAT(MessageOf(MakeRequest(1, 0)), HasSubstr("max_tokens is 0"));
  EXPECT_THAT(MessageOf(MakeRequest(1, -5)), HasSubstr("max_tokens is -5"));
}

TEST(RequestCheckTest, RefusesTokensOutsideTheVocabulary) {
  Request request = MakeRequest(2, 1);
  request.prompt = {0, 9};
  EXPECT_TRUE(CheckRequest(request, kLimits, 0).ok());
  request.prompt[1] = 10;
  EXPECT_THAT(MessageOf(request), AllOf(HasSubstr("token id 10"), HasSubstr("0 to 9")));
  request.prompt[1] = -1;
  EXPECT_THAT(MessageOf(request), HasSubstr("token id -1"));
}

TEST(MaxRequestTokensTest, OneSequenceMayHaveFewerPagesThanThePool) {
  ExecutorLimits limits{.page_tokens = 4, .num_pages = 10};
  EXPECT_EQ(MaxRequestTokens(limits, 0), 40);
  limits.max_seq_pages = 3;
  EXPECT_EQ(MaxRequestTokens(limits, 0), 12);
  EXPECT_EQ(MaxRequestTokens(limits, 11), 11);
  limits.max_seq_pages = 20;
  EXPECT_EQ(MaxRequestTokens(limits, 0), 40);
}

}  // namespace
}  // namespace nsa
