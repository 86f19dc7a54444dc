#include "base/task_lane.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <numeric>
#include <vector>

namespace nsa {
namespace {

TEST(TaskLane, OneThreadKeepsTheOrderAndRunsWhatWaits) {
  std::vector<int> order, expected(100);
  std::iota(expected.begin(), expected.end(), 0);
  std::promise<void> begin;
  {
    TaskLane lane(1, "test");
    lane.Run([&] { begin.get_future().wait(); });
    for (const int i : expected) lane.Run([&order, i] { order.push_back(i); });
    begin.set_value();
  }
  EXPECT_EQ(order, expected);
}

TEST(TaskLane, SoManyWorkAtTheSameTime) {
  std::atomic<int> num_working{0}, most{0};
  std::promise<void> both;
  {
    TaskLane lane(2, "test");
    for (int i = 0; i < 50; ++i) {
      lane.Run([&, i] {
        const int now = ++num_working;
        for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
        }
        if (i == 0) both.get_future().wait();
        if (i == 1) both.set_value();
        --num_working;
      });
    }
  }
  EXPECT_EQ(most, 2);
}

TEST(TaskLane, ATaskMayRunAnother) {
  std::promise<void> done;
  TaskLane lane(1, "test");
  lane.Run([&] { lane.Run([&] { done.set_value(); }); });
  done.get_future().wait();
}

}  // namespace
}  // namespace nsa
