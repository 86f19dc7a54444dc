#include "engine/scheduler.h"

#include <memory>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/scheduler_fixture.h"

namespace nsa {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

TEST_F(SchedulerTest, PrefillsInChunksThenDecodesOneTokenPerStep) {
  Start(kRoomy);
  const Sequence* sequence = Add(19, 3);
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 8)));
  EXPECT_FALSE(plan_.chunks[0].samples);
  EXPECT_EQ(sequence->pages.size(), 2U);
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 8)));
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 3)));
  EXPECT_TRUE(plan_.chunks[0].samples);
  EXPECT_EQ(sequence->state, SequenceState::kDecode);
  EXPECT_EQ(sequence->pages.size(), 5U);
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 1)));
  EXPECT_EQ(sequence->num_generated_tokens(), 2);
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 1)));
  EXPECT_EQ(sequence->state, SequenceState::kFinished);
  EXPECT_EQ(sequence->finish, FinishReason::kLength);
  EXPECT_THAT(Step(), IsEmpty());
  EXPECT_EQ(scheduler_->pages().num_free(), 100);
}

TEST_F(SchedulerTest, TakesAPageOnlyWhenATokenNeedsIt) {
  Start(kRoomy);
  const Sequence* sequence = Add(4, 6);
  Step();
  EXPECT_EQ(sequence->pages.size(), 1U);
  for (int i = 0; i < 4; ++i) {
    Step();
    EXPECT_EQ(sequence->pages.size(), 2U) << i;
  }
  EXPECT_EQ(sequence->num_cached_tokens, 8);
}

TEST_F(SchedulerTest, DecodesFirstThenRunningPrefillsThenAdmits) {
  Start({.page_tokens = 4,
         .num_pages = 100,
         .max_num_seqs = 10,
         .max_chunk_tokens = 8,
         .max_batched_tokens = 12});
  Add(20, 2);
  Step();
  Add(2, 9);
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 8), Pair(1, 2)));
  Add(30, 1);
  Add(1, 1);
  EXPECT_THAT(Step(), ElementsAre(Pair(1, 1), Pair(0, 4), Pair(2, 7)));
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 1), Pair(1, 1), Pair(2, 8), Pair(3, 1)));
}

TEST_F(SchedulerTest, DecodesCannotKeepTheOldestFromItsPrefill) {
  Start({.page_tokens = 4,
         .num_pages = 100,
         .max_num_seqs = 10,
         .max_chunk_tokens = 2,
         .max_batched_tokens = 4});
  Add(10, 1);
  for (int i = 0; i < 5; ++i) Add(1, 9);
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 2), Pair(1, 1), Pair(2, 1)));
  EXPECT_THAT(Step(), ElementsAre(Pair(1, 1), Pair(2, 1), Pair(0, 2)));
  EXPECT_THAT(Step(), ElementsAre(Pair(1, 1), Pair(2, 1), Pair(0, 2)));
}

TEST_F(SchedulerTest, ABudgetOfOneTokenServesTheOldestFirst) {
  Start({.page_tokens = 4,
         .num_pages = 100,
         .max_num_seqs = 10,
         .max_chunk_tokens = 8,
         .max_batched_tokens = 1});
  Add(2, 2);
  Add(1, 1);
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 1)));
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 1)));
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 1)));
  EXPECT_THAT(Step(), ElementsAre(Pair(1, 1)));
}

TEST_F(SchedulerTest, AdmitsInOrderAndLeavesTheRestUntouched) {
  Start({.page_tokens = 4,
         .num_pages = 6,
         .max_num_seqs = 10,
         .max_chunk_tokens = 8,
         .max_batched_tokens = 20});
  Add(16, 1);
  const Sequence* large = Add(12, 1);
  const Sequence* small = Add(1, 1);
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 8)));
  for (const Sequence* sequence : {large, small}) {
    EXPECT_EQ(sequence->state, SequenceState::kWaiting);
    EXPECT_THAT(sequence->pages, IsEmpty());
    EXPECT_EQ(sequence->times.scheduled, absl::InfiniteFuture());
  }
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 8)));
  EXPECT_THAT(Step(), ElementsAre(Pair(1, 8), Pair(2, 1)));
  EXPECT_EQ(large->times.scheduled, absl::FromUnixSeconds(102));
}

TEST_F(SchedulerTest, RunsNoMoreSequencesThanAllowed) {
  Start({.page_tokens = 4,
         .num_pages = 100,
         .max_num_seqs = 2,
         .max_chunk_tokens = 8,
         .max_batched_tokens = 20});
  for (int i = 0; i < 3; ++i) Add(1, 2);
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 1), Pair(1, 1)));
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 1), Pair(1, 1)));
  EXPECT_THAT(Step(), ElementsAre(Pair(2, 1)));
}

// Pages of 2 tokens; each prompt fills its pages exactly, so the next token needs a new one.
constexpr ExecutorLimits kFourPages{.page_tokens = 2,
                                    .num_pages = 4,
                                    .max_num_seqs = 10,
                                    .max_chunk_tokens = 8,
                                    .max_batched_tokens = 20};

TEST_F(SchedulerTest, PreemptsTheLastArrivalWhichIsComputedAgain) {
  Start(kFourPages);
  Add(4, 4);
  const Sequence* victim = Add(4, 3);
  Add(2, 1);
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 4), Pair(1, 4)));
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 1)));
  EXPECT_EQ(plan_.num_preemptions, 1);
  EXPECT_EQ(victim->state, SequenceState::kWaiting);
  EXPECT_THAT(victim->pages, IsEmpty());
  EXPECT_EQ(victim->num_generated_tokens(), 1);
  EXPECT_EQ(victim->times.num_preemptions, 1);
  EXPECT_EQ(scheduler_->waiting().front(), victim);
  // One page is free; the victim's 5 known tokens need 3, and nobody passes it.
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 1)));
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 1)));
  EXPECT_EQ(sequences_[0]->finish, FinishReason::kLength);
  EXPECT_THAT(Step(), ElementsAre(Pair(1, 5), Pair(2, 2)));
  EXPECT_EQ(victim->num_generated_tokens(), 2);
  EXPECT_EQ(victim->times.scheduled, absl::FromUnixSeconds(100));
}

TEST_F(SchedulerTest, TheLastArrivalPausesWithItsPagesInsteadOfPreemptingItself) {
  Start(kFourPages);
  Add(3, 5);
  const Sequence* last = Add(4, 3);
  Step();
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 1)));
  EXPECT_EQ(plan_.num_preemptions, 0);
  EXPECT_EQ(last->state, SequenceState::kDecode);
  EXPECT_EQ(last->pages.size(), 2U);
  // Only when the older one needs a page does it give way.
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 1)));
  EXPECT_EQ(plan_.num_preemptions, 1);
}

TEST_F(SchedulerTest, AChunkShrinksToThePagesThatAreLeft) {
  Start({.page_tokens = 2,
         .num_pages = 6,
         .max_num_seqs = 10,
         .max_chunk_tokens = 4,
         .max_batched_tokens = 20});
  Add(1, 9);
  Add(10, 1);
  Step();
  // One sequence in decode has taken a page that the prompt of the other was counting on.
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 1), Pair(1, 4)));
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 1)));
  EXPECT_EQ(sequences_[1]->num_cached_tokens, 8);
}

// Pages of 4 tokens, a lookback of 5.
constexpr ExecutorLimits kLookback{.page_tokens = 4,
                                   .num_pages = 100,
                                   .num_recent_pages = 100,
                                   .lookback_tokens = 5,
                                   .max_num_seqs = 10,
                                   .max_chunk_tokens = 8,
                                   .max_batched_tokens = 20};

TEST_F(SchedulerTest, RecentPagesMoveWithTheSequence) {
  Start(kLookback);
  const Sequence* sequence = Add(17, 3);
  std::vector<std::pair<int64_t, size_t>> first_and_count;
  const auto step = [&] {
    Step();
    first_and_count.emplace_back(sequence->first_recent_page, sequence->recent_pages.size());
    EXPECT_EQ(scheduler_->recent_pages().num_free(),
              100 - static_cast<int64_t>(sequence->recent_pages.size()));
  };
  step();  // 8 tokens cached: the next one looks back at token 3
  step();  // 16: at token 11
  step();  // 17: at token 12
  EXPECT_THAT(first_and_count, ElementsAre(Pair(0, 2U), Pair(2, 2U), Pair(3, 2U)));
  EXPECT_EQ(sequence->pages.size(), 5U);
  Step();
  Step();
  EXPECT_EQ(sequence->state, SequenceState::kFinished);
  EXPECT_EQ(scheduler_->recent_pages().num_free(), 100);
}

TEST_F(SchedulerTest, APreemptedSequenceGivesBackItsRecentPages) {
  ExecutorLimits limits = kLookback;
  limits.num_pages = 4;
  Start(limits);
  Add(8, 8);
  const Sequence* victim = Add(8, 8);
  Step();
  EXPECT_EQ(victim->recent_pages.size(), 2U);
  Step();
  ASSERT_EQ(victim->state, SequenceState::kWaiting);
  EXPECT_TRUE(victim->recent_pages.empty());
  EXPECT_EQ(victim->first_recent_page, 0);
  EXPECT_EQ(scheduler_->recent_pages().num_free(), 98);
}

TEST_F(SchedulerTest, NeedsTheRecentPagesOfALargestStep) {
  ExecutorLimits limits = kLookback;
  EXPECT_EQ(limits.MinRecentPages(), 10 * (2 + 1) + 20 / 4);
  EXPECT_EQ(limits.recent_columns(), 4);  // of 13 tokens
  limits.num_recent_pages = limits.MinRecentPages() - 1;
  EXPECT_DEATH(Scheduler{limits}, "check failed");
}

TEST_F(SchedulerTest, APlannedDecodeIsTakenBackWhenAnOlderPrefillNeedsItsPages) {
  Start({.page_tokens = 2,
         .num_pages = 5,
         .max_num_seqs = 10,
         .max_chunk_tokens = 2,
         .max_batched_tokens = 20});
  Add(8, 1);
  Add(1, 8);
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 2), Pair(1, 1)));
  EXPECT_THAT(Step(), ElementsAre(Pair(1, 1), Pair(0, 2)));
  EXPECT_THAT(Step(), ElementsAre(Pair(1, 1), Pair(0, 2)));
  ASSERT_EQ(scheduler_->pages().num_free(), 0);
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 2)));
  EXPECT_EQ(plan_.num_preemptions, 1);
  EXPECT_EQ(plan_.num_tokens, 2);
  EXPECT_EQ(sequences_[1]->num_generated_tokens(), 3);
  EXPECT_THAT(Step(), ElementsAre(Pair(1, 2)));
}

TEST_F(SchedulerTest, RemoveFreesPagesAndSlotInEveryState) {
  Start(kRoomy);
  Sequence* decoding = Add(2, 5);
  Sequence* prefilling = Add(20, 5);
  Step();
  Sequence* waiting = Add(4, 4);
  ASSERT_EQ(decoding->state, SequenceState::kDecode);
  ASSERT_EQ(prefilling->state, SequenceState::kPrefill);
  for (Sequence* sequence : {decoding, prefilling, waiting}) {
    scheduler_->Remove(sequence, FinishReason::kCancelled);
    EXPECT_EQ(sequence->state, SequenceState::kFinished);
    EXPECT_EQ(sequence->finish, FinishReason::kCancelled);
  }
  EXPECT_TRUE(scheduler_->idle());
  EXPECT_EQ(scheduler_->pages().num_free(), 100);
}

TEST_F(SchedulerTest, EndsWhatIsPastItsDeadlineInEveryState) {
  Start(kRoomy);
  const absl::Time deadline = now_ + absl::Seconds(1);
  Sequence* decoding = Add(2, 5, deadline);
  Sequence* prefilling = Add(20, 5, deadline);
  Add(2, 5, deadline + absl::Nanoseconds(1));
  Step();
  Sequence* waiting = Add(4, 4, deadline);
  EXPECT_THAT(Step(), ElementsAre(Pair(2, 1)));
  EXPECT_THAT(plan_.expired, ElementsAre(decoding, prefilling, waiting));
  for (const Sequence* sequence : plan_.expired) {
    EXPECT_EQ(sequence->finish, FinishReason::kTimeout);
    EXPECT_THAT(sequence->pages, IsEmpty());
  }
  EXPECT_THAT(scheduler_->running(), ElementsAre(sequences_[2].get()));
}

TEST_F(SchedulerTest, AStopTokenEndsASequence) {
  Start(kRoomy);
  Sequence* sequence = Add(2, 5);
  sequence->request.stop_token_ids = {kToken};
  Step();
  EXPECT_EQ(sequence->finish, FinishReason::kStop);
  EXPECT_TRUE(scheduler_->idle());
}

// The next step is planned and launched before the one before it is committed.
TEST_F(SchedulerTest, PlansAheadWithTokensThatAreNotKnownYet) {
  Start(kRoomy);
  Sequence* sequence = Add(4, 3);
  const StepPlan first = scheduler_->Plan(now_);
  scheduler_->Launched(first);
  EXPECT_EQ(sequence->num_pending_tokens, 1);
  const StepPlan second = scheduler_->Plan(now_);
  ASSERT_EQ(second.chunks.size(), 1U);
  EXPECT_TRUE(second.chunks[0].samples);
  EXPECT_EQ(second.chunks[0].end_tokens, 5);
  EXPECT_EQ(sequence->pages.size(), 2U);  // for the fifth token
  scheduler_->Launched(second);
  EXPECT_EQ(sequence->num_pending_tokens, 2);
  scheduler_->Commit(first.chunks[0], kToken);
  EXPECT_EQ(sequence->num_tokens(), 5);
  const StepPlan third = scheduler_->Plan(now_);
  scheduler_->Launched(third);
  scheduler_->Commit(second.chunks[0], kToken);
  EXPECT_TRUE(sequence->awaits_end());
  EXPECT_THAT(scheduler_->Plan(now_).chunks, IsEmpty());
  scheduler_->Commit(third.chunks[0], kToken);
  EXPECT_EQ(sequence->finish, FinishReason::kLength);
  EXPECT_EQ(scheduler_->pages().num_free(), 100);
}

TEST_F(SchedulerTest, APreemptedSequenceKeepsTheTokenThatIsInFlight) {
  Start(kFourPages);
  Sequence* older = Add(4, 4);
  Sequence* younger = Add(4, 3);
  const StepPlan first = scheduler_->Plan(now_);
  ASSERT_EQ(first.chunks.size(), 2U);
  scheduler_->Launched(first);
  const StepPlan second = scheduler_->Plan(now_);  // one page for `older` is one too many
  ASSERT_EQ(second.chunks.size(), 1U);
  EXPECT_EQ(second.num_preemptions, 1);
  EXPECT_EQ(younger->state, SequenceState::kWaiting);
  scheduler_->Launched(second);
  scheduler_->Commit(first.chunks[0], kToken);
  EXPECT_NE(first.chunks[1].preemptions, younger->times.num_preemptions);
  scheduler_->Commit(first.chunks[1], kToken);
  EXPECT_EQ(younger->num_tokens(), 5);
  EXPECT_EQ(younger->num_cached_tokens, 0);
  EXPECT_EQ(older->num_tokens(), 5);
}

TEST_F(SchedulerTest, ASequenceThatCanNeverFitIsAProgrammerError) {
  Start(kFourPages);
  EXPECT_DEATH(Add(8, 1), "can never run");
}

}  // namespace
}  // namespace nsa
