// Priorities: who is served first, and that nobody is kept waiting for ever.
#include <gmock/gmock.h>

#include "tests/engine/scheduler_fixture.h"

namespace nsa {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

// One sequence at a time, so that the order of service shows.
constexpr ExecutorLimits kOneByOne{.page_tokens = 4,
                                   .num_pages = 100,
                                   .max_num_seqs = 1,
                                   .max_chunk_tokens = 8,
                                   .max_batched_tokens = 20};

class PriorityTest : public SchedulerTest {
 protected:
  Sequence* AddWith(int32_t priority, int64_t num_prompt_tokens = 4, int64_t max_tokens = 1) {
    return Add(num_prompt_tokens, max_tokens, absl::InfiniteFuture(), priority);
  }
};

TEST_F(PriorityTest, LowerOnesGoFirstAndEqualOnesInOrderOfArrival) {
  Start(kOneByOne);
  for (const int32_t priority : {0, 1, 0, -1, 1, -1}) AddWith(priority);
  for (const RequestId id : {3, 5, 0, 2, 1, 4}) EXPECT_THAT(Step(), ElementsAre(Pair(id, 4)));
}

TEST_F(PriorityTest, AStepOfPriorityIsAHeadStartOfItsTime) {
  Start(kOneByOne);
  AddWith(1);
  now_ += kPriorityHeadStart - absl::Milliseconds(1);
  AddWith(0);
  now_ += absl::Milliseconds(2);
  AddWith(0);  // more than a step behind the first one
  for (const RequestId id : {1, 0, 2}) EXPECT_THAT(Step(), ElementsAre(Pair(id, 4)));
}

TEST_F(PriorityTest, TheLowestOneIsServedUnderAStreamOfTheHighest) {
  Start(kOneByOne);
  const Sequence* last = AddWith(20);
  // A step takes a second: as many of the highest priority pass as the head start has seconds, then
  // ranks are equal and it arrived first.
  const auto limit = static_cast<int64_t>(40 * kPriorityHeadStart / absl::Seconds(1)) + 1;
  int64_t num_steps = 0;
  for (; last->state != SequenceState::kFinished && num_steps < 10 * limit; ++num_steps) {
    AddWith(-20);
    Step();
  }
  EXPECT_EQ(num_steps, limit);
}

TEST_F(PriorityTest, APrefillOfHigherPriorityTakesTheBudget) {
  ExecutorLimits limits = kRoomy;
  limits.max_batched_tokens = 8;
  Start(limits);
  AddWith(0, 16);
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 8)));
  // It is admitted into what the running one leaves: nothing, until that is through.
  AddWith(-20, 16);
  EXPECT_THAT(Step(), ElementsAre(Pair(0, 8)));
  EXPECT_THAT(Step(), ElementsAre(Pair(1, 8)));
  // From now on it comes before one that was there earlier.
  AddWith(0, 16);
  EXPECT_THAT(Step(), ElementsAre(Pair(1, 8)));
}

TEST_F(PriorityTest, TheLowestPriorityIsPreempted) {
  ExecutorLimits limits = kRoomy;
  limits.num_pages = 6;
  Start(limits);
  const Sequence* low = AddWith(20, 8, 16);  // 2 pages, up to 6
  const Sequence* high = AddWith(0, 8, 16);
  Step();
  while (low->times.num_preemptions + high->times.num_preemptions == 0) Step();
  EXPECT_EQ(high->times.num_preemptions, 0);
  EXPECT_EQ(low->state, SequenceState::kWaiting);
  // Another one of its priority that arrives now waits behind it.
  const Sequence* later = AddWith(20, 8, 1);
  EXPECT_THAT(scheduler_->waiting(), ElementsAre(low, later));
  for (int i = 0; i < 100 && !scheduler_->idle(); ++i) Step();
  EXPECT_TRUE(scheduler_->idle());
  EXPECT_EQ(low->num_generated_tokens(), 16);
  EXPECT_EQ(high->num_generated_tokens(), 16);
}

}  // namespace
}  // namespace nsa
