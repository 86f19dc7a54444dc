#include "base/byte_budget.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace nsa {
namespace {

TEST(ByteBudget, IsSharedToTheLastByte) {
  const auto budget = std::make_shared<ByteBudget>(100);
  ByteShare first(budget), second(budget);
  EXPECT_TRUE(first.GrowTo(60));
  EXPECT_TRUE(first.GrowTo(10));  // it holds more already
  EXPECT_EQ(budget->num_free(), 40);
  EXPECT_FALSE(second.GrowTo(41));
  EXPECT_EQ(budget->num_free(), 40);
  EXPECT_TRUE(second.GrowTo(40));
  EXPECT_FALSE(first.GrowTo(61));
  second.Release();
  EXPECT_TRUE(first.GrowTo(100));
  EXPECT_EQ(budget->num_free(), 0);
}

TEST(ByteBudget, AShareGivesBackWhatItHoldsOnce) {
  const auto budget = std::make_shared<ByteBudget>(100);
  {
    ByteShare share(budget);
    EXPECT_TRUE(share.GrowTo(70));
    share.Release();
    share.Release();
    EXPECT_EQ(budget->num_free(), 100);
    EXPECT_TRUE(share.GrowTo(30));
  }
  EXPECT_EQ(budget->num_free(), 100);
}

TEST(ByteBudget, ManyThreadsNeverHoldMore) {
  const auto budget = std::make_shared<ByteBudget>(1000);
  std::atomic<int64_t> num_held{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10000; ++i) {
        ByteShare share(budget);
        if (!share.GrowTo(400)) continue;
        EXPECT_LE(num_held += 400, 1000);
        num_held -= 400;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(budget->num_free(), 1000);
}

}  // namespace
}  // namespace nsa
