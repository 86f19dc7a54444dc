#include "server/http/turns.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace nsa {
namespace {

using ::testing::ElementsAre;

TEST(Turns, OthersWaitInOrder) {
  const auto turns = std::make_shared<Turns>(2);
  std::vector<Turns::Turn> held;
  std::vector<int> order;
  for (int i = 0; i < 4; ++i) {
    turns->Take([&, i](Turns::Turn turn) {
      order.push_back(i);
      held.push_back(std::move(turn));
    });
  }
  EXPECT_THAT(order, ElementsAre(0, 1));
  held[0].reset();
  EXPECT_THAT(order, ElementsAre(0, 1, 2));
  held[1].reset();
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3));
  held.clear();
  turns->Take([&](const Turns::Turn&) { order.push_back(4); });
  EXPECT_EQ(order.back(), 4);
}

TEST(Turns, ATurnThatIsNotUsedPassesOn) {
  constexpr int kNumWaiting = 200'000;  // more than a stack holds calls
  const auto turns = std::make_shared<Turns>(1);
  int num_gone = 0;
  turns->Take([&](const Turns::Turn&) {
    for (int i = 0; i < kNumWaiting; ++i) turns->Take([&](const Turns::Turn&) { ++num_gone; });
    EXPECT_EQ(num_gone, 0);
  });
  EXPECT_EQ(num_gone, kNumWaiting);
}

TEST(Turns, ManyThreadsNeverHaveMore) {
  const auto turns = std::make_shared<Turns>(3);
  std::atomic<int> num_working{0}, num_done{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        turns->Take([&](const Turns::Turn&) {
          EXPECT_LE(++num_working, 3);
          --num_working;
          ++num_done;
        });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_done, 8000);
}

}  // namespace
}  // namespace nsa
