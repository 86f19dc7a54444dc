// Thousands of random schedules. A failure names its seed; to run that one alone:
//   engine_test --gtest_filter='SimulationTest.Replay*' --gtest_random_seed=SEED

#include "tests/engine/simulation.h"

#include "gtest/gtest.h"

namespace nsa {
namespace {

constexpr uint64_t kSeedsPerBlock = 100;
constexpr uint64_t kNumBlocks = 30;

void RunSeed(uint64_t seed, int max_steps_ahead, SimulationCounts& counts) {
  SCOPED_TRACE(testing::Message() << "seed " << seed << ", " << max_steps_ahead
                                  << " steps ahead (replay: --gtest_filter=SimulationTest.Replay* "
                                  << "--gtest_random_seed=" << seed << ")");
  Simulation(seed, max_steps_ahead).Run(counts);
}

// The block, and how many steps the executor runs ahead.
class SimulationBlockTest : public testing::TestWithParam<std::tuple<uint64_t, int>> {};

TEST_P(SimulationBlockTest, EveryRequestEndsOnceWithTheOutputOfItsSoloRun) {
  SimulationCounts counts;
  const auto [block, max_steps_ahead] = GetParam();
  const uint64_t first = block * kSeedsPerBlock;
  for (uint64_t seed = first; seed < first + kSeedsPerBlock && !HasFailure(); ++seed) {
    RunSeed(seed, max_steps_ahead, counts);
  }
  if (HasFailure()) return;
  EXPECT_EQ(counts.num_unread_tokens > 0, max_steps_ahead > 0);
  EXPECT_GT(counts.num_preemptions, 0);
  EXPECT_GT(counts.num_shared_tokens, 0);
  EXPECT_GT(counts.num_pauses, 0);
  EXPECT_GT(counts.num_step_errors, 0);
  EXPECT_GT(counts.num_row_errors, 0);
  EXPECT_GT(counts.num_cancelled_waiting, 0);
  EXPECT_GT(counts.num_cancelled_prefill, 0);
  EXPECT_GT(counts.num_cancelled_decode, 0);
  for (FinishReason reason : {FinishReason::kStop, FinishReason::kLength, FinishReason::kCancelled,
                              FinishReason::kTimeout, FinishReason::kError}) {
    EXPECT_GT(counts.num_finished[static_cast<size_t>(reason)], 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Blocks, SimulationBlockTest,
                         testing::Combine(testing::Range<uint64_t>(0, kNumBlocks),
                                          testing::Values(0, 1)));

TEST(SimulationTest, ReplayInStep) {
  SimulationCounts counts;
  RunSeed(static_cast<uint64_t>(GTEST_FLAG_GET(random_seed)), 0, counts);
}

TEST(SimulationTest, ReplayAhead) {
  SimulationCounts counts;
  RunSeed(static_cast<uint64_t>(GTEST_FLAG_GET(random_seed)), 1, counts);
}

}  // namespace
}  // namespace nsa
