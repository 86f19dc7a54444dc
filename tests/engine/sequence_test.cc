#include "engine/sequence.h"

#include "gtest/gtest.h"
#include "tests/support/byte_constraint.h"

namespace nsa {
namespace {

Sequence MakeSequence(int64_t max_tokens, std::vector<int32_t> stops) {
  Request request{.id = 1, .prompt = {4, 5, 6}, .max_tokens = max_tokens};
  request.stop_token_ids = std::move(stops);
  return Sequence(std::move(request), nullptr, absl::FromUnixSeconds(9));
}

TEST(SequenceTest, StartsWaitingWithThePromptKnownAndNothingCached) {
  const Sequence sequence = MakeSequence(2, {});
  EXPECT_EQ(sequence.state, SequenceState::kWaiting);
  EXPECT_EQ(sequence.tokens, (std::vector<int32_t>{4, 5, 6}));
  EXPECT_EQ(sequence.num_prompt_tokens, 3);
  EXPECT_EQ(sequence.num_generated_tokens(), 0);
  EXPECT_EQ(sequence.num_uncached_tokens(), 3);
  EXPECT_TRUE(sequence.recent_pages.empty());
  EXPECT_EQ(sequence.times.arrived, absl::FromUnixSeconds(9));
  EXPECT_EQ(sequence.times.queued, absl::FromUnixSeconds(9));
  EXPECT_EQ(sequence.times.scheduled, absl::InfiniteFuture());
}

TEST(SequenceTest, EndsByLengthAtMaxTokens) {
  Sequence sequence = MakeSequence(2, {});
  EXPECT_EQ(sequence.Append(7), FinishReason::kNone);
  EXPECT_EQ(sequence.Append(7), FinishReason::kLength);
  EXPECT_EQ(sequence.num_generated_tokens(), 2);
  EXPECT_EQ(sequence.num_prompt_tokens, 3);
}

TEST(SequenceTest, EndsAtAnyStopTokenEvenWhenItIsTheLastAllowed) {
  Sequence sequence = MakeSequence(2, {8, 9});
  EXPECT_EQ(sequence.Append(7), FinishReason::kNone);
  EXPECT_EQ(sequence.Append(9), FinishReason::kStop);
  EXPECT_EQ(sequence.tokens.back(), 9);
}

TEST(SequenceTest, AStopTokenInThePromptDoesNotEndIt) {
  Sequence sequence = MakeSequence(3, {4});
  EXPECT_EQ(sequence.Append(5), FinishReason::kNone);
}

TEST(SequenceTest, AConstraintIsFollowedAndItsEndTokensStop) {
  Request request{.prompt = {4}, .max_tokens = 9, .rules = {.min_tokens = 3}};
  request.stop_token_ids = {'c'};
  request.constraint = ByteRegex("a+b?c?");
  Sequence sequence(request, nullptr, absl::UnixEpoch());
  EXPECT_FALSE(sequence.logit_editor.has_value());  // min_tokens is the mask's
  EXPECT_TRUE(sequence.edits_logits());
  EXPECT_EQ(sequence.Append('a'), FinishReason::kNone);
  EXPECT_EQ(Sequence(request, nullptr, absl::UnixEpoch()).Append('b'), FinishReason::kError);
  EXPECT_TRUE(sequence.is_stop_token('c') && sequence.is_stop_token(kByteEos));
  EXPECT_FALSE(sequence.is_stop_token('b'));
  EXPECT_EQ(sequence.Append('b'), FinishReason::kNone);
  EXPECT_EQ(sequence.Append(kByteEos), FinishReason::kStop);
}

}  // namespace
}  // namespace nsa
