#include "bench/serving/workload.h"

#include <gmock/gmock.h>

#include <algorithm>

namespace nsa::bench {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::Ge;
using ::testing::Le;

std::vector<PlannedCall> Calls(const WorkloadOptions& options, int num_calls) {
  Workload workload(options);
  std::vector<PlannedCall> calls;
  for (int i = 0; i < num_calls; ++i) calls.push_back(workload.Next());
  return calls;
}

TEST(LengthDistributionTest, DrawsWithinItsRange) {
  std::mt19937_64 random(1);
  const auto lengths = LengthDistribution::Parse("16..20");
  ASSERT_TRUE(lengths.ok());
  std::vector<int64_t> counts(21);
  for (int i = 0; i < 1000; ++i) ++counts.at(lengths->Draw(random));
  for (int length = 0; length < 16; ++length) EXPECT_EQ(counts[length], 0);
  for (int length = 16; length <= 20; ++length) EXPECT_GT(counts[length], 100);
}

TEST(LengthDistributionTest, LogNormalHasItsMedian) {
  std::mt19937_64 random(1);
  const auto lengths = LengthDistribution::Parse("~100*1");
  ASSERT_TRUE(lengths.ok());
  std::vector<int64_t> drawn;
  for (int i = 0; i < 2001; ++i) drawn.push_back(lengths->Draw(random));
  EXPECT_THAT(drawn, Each(AllOf(Ge(1), Le(1600))));
  std::sort(drawn.begin(), drawn.end());
  EXPECT_NEAR(static_cast<double>(drawn[1000]), 100, 8);
  EXPECT_NEAR(static_cast<double>(drawn[1683]), 272, 35);  // one sigma above
}

TEST(LengthDistributionTest, RefusesWhatIsNoLength) {
  for (const char* text :
       {"", "0", "-1", "x", "8..", "..8", "9..8", "0..8", "~", "~8", "~8*0", "~8*9"}) {
    EXPECT_FALSE(LengthDistribution::Parse(text).ok()) << text;
  }
}

TEST(WorkloadTest, TheSameSeedGivesTheSameLoad) {
  const WorkloadOptions options{.rate = 5, .cancelled_share = 0.5, .seed = 7};
  const auto first = Calls(options, 50), second = Calls(options, 50);
  WorkloadOptions other = options;
  other.seed = 8;
  const auto third = Calls(other, 50);
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(first[i].arrival, second[i].arrival);
    EXPECT_EQ(first[i].cancel_after, second[i].cancel_after);
    EXPECT_EQ(PromptIds(first[i]), PromptIds(second[i]));
    EXPECT_NE(PromptIds(first[i]), PromptIds(third[i]));
  }
}

TEST(WorkloadTest, ArrivalsAreAPoissonProcess) {
  const auto calls = Calls({.rate = 20}, 4000);
  EXPECT_NEAR(absl::ToDoubleSeconds(calls.back().arrival), 200, 10);
  // Of exponential gaps a share of 1/e is longer than the mean.
  int num_longer = 0;
  for (size_t i = 1; i < calls.size(); ++i) {
    if (calls[i].arrival - calls[i - 1].arrival > absl::Milliseconds(50)) ++num_longer;
  }
  EXPECT_NEAR(num_longer / 4000.0, 0.368, 0.03);
}

TEST(WorkloadTest, CancelsTheShareThatIsWantedWithinTheAnswer) {
  WorkloadOptions options{.cancelled_share = 0.3};
  options.output_tokens = LengthDistribution(10);
  int num_cancelled = 0;
  for (const PlannedCall& call : Calls(options, 2000)) {
    if (call.cancel_after < 0) continue;
    ++num_cancelled;
    EXPECT_LT(call.cancel_after, 10);
  }
  EXPECT_NEAR(num_cancelled / 2000.0, 0.3, 0.03);
}

TEST(WorkloadTest, CancelsDoNotMoveTheRest) {
  const auto without = Calls({.rate = 5}, 20);
  const auto with = Calls({.rate = 5, .cancelled_share = 1}, 20);
  for (size_t i = 0; i < with.size(); ++i) {
    EXPECT_EQ(with[i].arrival, without[i].arrival);
    EXPECT_EQ(with[i].seed, without[i].seed);
    EXPECT_LT(without[i].cancel_after, 0);
    EXPECT_GE(with[i].cancel_after, 0);
  }
}

TEST(WorkloadTest, PromptsHaveTheirLength) {
  const PlannedCall call{.prompt_tokens = 40, .seed = 3};
  EXPECT_THAT(PromptIds(call), AllOf(testing::SizeIs(40), Each(AllOf(Ge(300), Le(4299)))));
  const std::string words = PromptWords(call);
  EXPECT_EQ(std::count(words.begin(), words.end(), ' '), 39);
}

}  // namespace
}  // namespace nsa::bench
