// Scheduler: sequences that share a prompt, and those that let others pass.

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "tests/engine/scheduler_fixture.h"

namespace nsa {
namespace {

TEST_F(SchedulerTest, PagesAreSharedAfterAnEndOfAnyKindUnlessTheyAreForgotten) {
  ExecutorLimits limits = kRoomy;
  limits.shares_prefixes = true;
  const auto shared_after = [&](FinishReason reason, bool forgotten) {
    Start(limits);
    Sequence* first = Add(8, 5);
    Step();
    scheduler_->Ended(true);
    if (forgotten) scheduler_->ForgetPages(*first);
    scheduler_->Remove(first, reason);
    Add(8, 5);
    return scheduler_->Plan(now_).num_shared_tokens;
  };
  EXPECT_EQ(shared_after(FinishReason::kCancelled, false), 7);
  EXPECT_EQ(shared_after(FinishReason::kError, false), 7);  // of a client's constraint, say
  EXPECT_EQ(shared_after(FinishReason::kError, true), 0);
}

// The other choices wait for the prompt, share its full pages and copy the last one.
TEST_F(SchedulerTest, ChoicesOfOnePromptForkFromTheFirst) {
  ExecutorLimits limits = kRoomy;
  limits.shares_prefixes = true;
  Start(limits);
  const Sequence* first = Add(7, 5);
  Sequence* second = Add(7, 5);
  second->request.same_prompt_as = first->request.id;
  EXPECT_EQ(Step(), (std::vector<std::pair<RequestId, int64_t>>{{0, 7}}));
  scheduler_->Ended(true);
  EXPECT_EQ(Step(), (std::vector<std::pair<RequestId, int64_t>>{{0, 1}, {1, 1}}));
  EXPECT_EQ(plan_.num_shared_tokens, 6);
  EXPECT_EQ(plan_.page_copies,
            (std::vector<PageCopy>{{.from = first->pages[1], .to = second->pages[1]}}));
  EXPECT_TRUE(plan_.recent_copies.empty());  // without a lookback
  EXPECT_EQ(second->pages[0], first->pages[0]);
  EXPECT_NE(second->pages[1], first->pages[1]);
  EXPECT_EQ(scheduler_->pages().num_references(first->pages[1]), 1);
}

TEST_F(SchedulerTest, AChoiceThatWaitsForItsPromptLetsOthersPassButKeepsItsPlace) {
  ExecutorLimits limits = kRoomy;
  limits.shares_prefixes = true;
  limits.max_num_seqs = 3;
  limits.max_chunk_tokens = 4;
  Start(limits);
  const Sequence* first = Add(20, 5);
  Add(20, 5)->request.same_prompt_as = first->request.id;
  Add(3, 5);
  Add(3, 5);
  EXPECT_EQ(Step(), (std::vector<std::pair<RequestId, int64_t>>{{0, 4}, {2, 3}}));
  for (int i = 0; i < 4; ++i) {
    scheduler_->Ended(true);
    EXPECT_EQ(scheduler_->waiting().size(), 2U);  // the third place is the choice's
    Step();
  }
  scheduler_->Ended(true);
  Step();
  EXPECT_EQ(scheduler_->waiting().front()->request.id, 3);
}

TEST_F(SchedulerTest, APromptWithoutRowsToScoreHoldsUpNobody) {
  ExecutorLimits limits = kRoomy;
  limits.max_scored_rows = 4;
  limits.max_batched_tokens = 64;
  limits.max_chunk_tokens = 32;
  Start(limits);
  Add(20, 5)->request.scores_prompt = true;
  Add(20, 5)->request.scores_prompt = true;
  Add(9, 5);
  const auto chunks = Step();
  ASSERT_EQ(chunks.size(), 2U);
  EXPECT_EQ(chunks[0].first, 0);
  EXPECT_EQ(chunks[1], (std::pair<RequestId, int64_t>{2, 9}));
}

}  // namespace
}  // namespace nsa
