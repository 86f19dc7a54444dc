#include "base/thread_pool.h"

#include <atomic>
#include <vector>

#include "gtest/gtest.h"

namespace nsa {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, RunsEveryItemOnceOnAWorkerOfThePool) {
  ThreadPool pool(GetParam());
  ASSERT_EQ(pool.num_threads(), GetParam());
  for (int64_t num_items : {0, 1, 2, 3, 100, 1000}) {
    std::vector<std::atomic<int>> visits(num_items);
    pool.ParallelFor(num_items, [&](int64_t item, int worker) {
      ASSERT_GE(worker, 0);
      ASSERT_LT(worker, pool.num_threads());
      visits[item].fetch_add(1);
    });
    for (const std::atomic<int>& count : visits) EXPECT_EQ(count.load(), 1);
  }
}

TEST_P(ThreadPoolTest, ManyShortLoopsInARow) {
  ThreadPool pool(GetParam());
  int64_t sum = 0;
  std::vector<int64_t> parts(8);
  for (int round = 0; round < 5000; ++round) {
    pool.ParallelFor(8, [&](int64_t item, int) { parts[item] = item + round; });
    for (int64_t part : parts) sum += part;
  }
  EXPECT_EQ(sum, 8LL * (4999LL * 5000 / 2) + 28LL * 5000);
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 5));

}  // namespace
}  // namespace nsa
