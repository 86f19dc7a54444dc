#include "bench/serving/runner.h"

#include <gmock/gmock.h>

#include <boost/asio/steady_timer.hpp>
#include <memory>

namespace nsa::bench {
namespace {

using std::chrono::milliseconds;

// Answers each call after a while.
class SlowCaller : public Caller {
 public:
  SlowCaller(boost::asio::io_context* loop, milliseconds wait, Outcome outcome = Outcome::kOk)
      : loop_(loop), wait_(wait), outcome_(outcome) {}

  void Start(const PlannedCall& call, Clock::time_point arrival, Done done) override {
    most_running_ = std::max(most_running_, ++num_running_);
    indices_.push_back(call.index);
    auto timer = std::make_shared<boost::asio::steady_timer>(*loop_, wait_);
    timer->async_wait([this, timer, arrival, done](boost::system::error_code /*error*/) {
      --num_running_;
      done({.arrival = arrival, .sent = arrival, .end = Clock::now(), .outcome = outcome_});
    });
  }

  int num_running_ = 0, most_running_ = 0;
  std::vector<int64_t> indices_;

 private:
  boost::asio::io_context* const loop_;
  const milliseconds wait_;
  const Outcome outcome_;
};

TEST(RunnerTest, AClosedLoopHasSoManyCallsInProgress) {
  boost::asio::io_context loop;
  SlowCaller caller(&loop, milliseconds(2));
  BenchOptions options;
  options.concurrency = 3;
  options.num_calls = 10;
  const RunResult result = RunLoad(options, &caller, &loop);
  EXPECT_EQ(result.calls.size(), 10U);
  EXPECT_EQ(caller.most_running_, 3);
  EXPECT_THAT(caller.indices_, testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
}

TEST(RunnerTest, AnOpenLoopWaitsForNobody) {
  boost::asio::io_context loop;
  SlowCaller caller(&loop, milliseconds(300));
  BenchOptions options;
  options.workload.rate = 500;
  options.num_calls = 20;
  const RunResult result = RunLoad(options, &caller, &loop);
  EXPECT_EQ(result.calls.size(), 20U);
  EXPECT_EQ(caller.most_running_, 20);
  Workload workload(options.workload);
  const Clock::time_point first = result.calls.front().arrival;
  const absl::Duration first_planned = workload.Next().arrival;
  for (size_t i = 1; i < result.calls.size(); ++i) {
    const absl::Duration planned = workload.Next().arrival - first_planned;
    EXPECT_EQ(result.calls[i].arrival - first, absl::ToChronoNanoseconds(planned)) << i;
  }
}

TEST(RunnerTest, ADurationEndsTheLoad) {
  boost::asio::io_context loop;
  SlowCaller caller(&loop, milliseconds(5));
  BenchOptions options;
  options.concurrency = 1;
  options.duration = absl::Milliseconds(60);
  const RunResult result = RunLoad(options, &caller, &loop);
  EXPECT_GE(result.calls.size(), 1U);
  EXPECT_LE(result.calls.size(), 12U);
  EXPECT_GE(result.seconds, 0.06);
}

TEST(RunnerTest, AClosedLoopDoesNotSpinOnFailures) {
  boost::asio::io_context loop;
  SlowCaller caller(&loop, milliseconds(0), Outcome::kRefused);
  BenchOptions options;
  options.concurrency = 1;
  options.duration = absl::Milliseconds(250);
  EXPECT_LE(RunLoad(options, &caller, &loop).calls.size(), 3U);
}

}  // namespace
}  // namespace nsa::bench
