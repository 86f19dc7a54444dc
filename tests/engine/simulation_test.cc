// A hundred thousand random lives of an engine. A failure names its seed; to run that one alone:
//   engine_test --gtest_filter=SimulationTest.ReplaysOneSeed --gtest_random_seed=SEED

#include "tests/engine/simulation.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace nsa {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kNumSeeds = 10'000;
#else
constexpr uint64_t kNumSeeds = 100'000;
#endif
constexpr uint64_t kSeedsPerBlock = 100;

// Seeds that once failed, with the defect put in by hand that made them (docs/reliability.md). What
// a seed means changes with what the simulation draws; the list is renewed with it then.
constexpr uint64_t kPastFailures[] = {
    0,      // a page leaks
    4,      // an eviction that the prefix index does not hear of
    5,      // edits made before the tokens that they depend on are known; late ones ignored
    9,      // rows of sequences that ended before their edits, forgotten
    67,     // requests that survive the device
    100,    // deadlines that pass in the queue
    101,    // a sequence that waits for ever
    16258,  // pages of a failed step, shared
    53723,  // pages of a step in flight, shared
};

// What this thread prints if it is aborted: a failed NSA_CHECK ends the process.
thread_local char last_words[160];  // NOLINT: a signal handler has no other way to its thread's

extern "C" void PrintLastWords(int) {
  [[maybe_unused]] const auto written = write(STDERR_FILENO, last_words, strlen(last_words));
}

std::string HowToReplay(uint64_t seed) {
  return absl::StrCat("seed ", seed, " failed; replay it alone with: engine_test ",
                      "--gtest_filter=SimulationTest.ReplaysOneSeed --gtest_random_seed=", seed,
                      "\n");
}

// An odd seed's executor runs a step ahead.
std::string RunSeed(uint64_t seed, SimulationCounts& counts) {
  const std::string replay = HowToReplay(seed);
  replay.copy(last_words, sizeof(last_words) - 1);
  const std::string problem = Simulation(seed, static_cast<int>(seed % 2)).Run(counts);
  return problem.empty() ? "" : replay + problem;
}

// Runs seeds [0, kNumSeeds) on every core; the first failure ends it.
class SimulationTest : public testing::Test {
 protected:
  SimulationTest() { std::signal(SIGABRT, PrintLastWords); }
  ~SimulationTest() override { std::signal(SIGABRT, SIG_DFL); }

  void RunAllSeeds() {
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < std::max(1U, std::thread::hardware_concurrency()); ++i) {
      threads.emplace_back([this] { RunBlocks(); });
    }
    for (std::thread& thread : threads) thread.join();
  }

  std::mutex mutex_;
  SimulationCounts in_step_, ahead_;  // of even and of odd seeds
  std::string problem_;

 private:
  void RunBlocks() {
    SimulationCounts in_step, ahead;
    std::string problem;
    while (problem.empty() && !failed_) {
      const uint64_t first = next_seed_.fetch_add(kSeedsPerBlock);
      if (first >= kNumSeeds) break;
      for (uint64_t i = 0; i < kSeedsPerBlock && problem.empty(); ++i) {
        const uint64_t seed = first + i;
        problem = RunSeed(seed, seed % 2 == 0 ? in_step : ahead);
      }
    }
    const std::lock_guard lock(mutex_);
    if (!problem.empty()) failed_ = true;
    if (problem_.empty()) problem_ = problem;
    in_step_.Add(in_step);
    ahead_.Add(ahead);
  }

  std::atomic<uint64_t> next_seed_ = 0;
  std::atomic<bool> failed_ = false;
};

void ExpectEverythingHappened(const SimulationCounts& counts) {
  EXPECT_GT(counts.num_preemptions, 0);
  EXPECT_GT(counts.num_shared_tokens, 0);
  EXPECT_GT(counts.num_copied_pages, 0);
  EXPECT_GT(counts.num_pauses, 0);
  EXPECT_GT(counts.num_edited_rows, 0);
  EXPECT_GT(counts.num_step_errors, 0);
  EXPECT_GT(counts.num_memory_errors, 0);
  EXPECT_GT(counts.num_row_errors, 0);
  EXPECT_GT(counts.num_stalls, 0);
  EXPECT_GT(counts.num_cancelled_waiting, 0);
  EXPECT_GT(counts.num_cancelled_prefill, 0);
  EXPECT_GT(counts.num_cancelled_decode, 0);
  EXPECT_GT(counts.num_disconnects, 0);
  EXPECT_GT(counts.num_found_ends, 0);
  EXPECT_GT(counts.num_rejected, 0);
  EXPECT_GT(counts.num_drains, 0);
  EXPECT_GT(counts.num_drained, 0);
  EXPECT_GT(counts.num_losses, 0);
  EXPECT_GT(counts.num_overtakings, 0);
  for (FinishReason reason : {FinishReason::kStop, FinishReason::kLength, FinishReason::kCancelled,
                              FinishReason::kTimeout, FinishReason::kError}) {
    EXPECT_GT(counts.num_finished[static_cast<size_t>(reason)], 0);
  }
}

TEST_F(SimulationTest, EveryRequestEndsOnceWithTheOutputOfItsSoloRun) {
  RunAllSeeds();
  ASSERT_EQ(problem_, "");
  ExpectEverythingHappened(in_step_);
  ExpectEverythingHappened(ahead_);
  EXPECT_EQ(in_step_.num_unread_tokens, 0);
  EXPECT_GT(ahead_.num_unread_tokens, 0);
}

TEST_F(SimulationTest, PastFailuresStayFixed) {
  SimulationCounts counts;
  for (const uint64_t seed : kPastFailures) EXPECT_EQ(RunSeed(seed, counts), "");
}

TEST_F(SimulationTest, ReplaysOneSeed) {
  SimulationCounts counts;
  EXPECT_EQ(RunSeed(static_cast<uint64_t>(GTEST_FLAG_GET(random_seed)), counts), "");
}

}  // namespace
}  // namespace nsa
