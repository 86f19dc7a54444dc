// Who is let into the engine: places that are reserved before there is a request, and what counts
// as waiting.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <thread>

#include "engine/engine.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/fake_executor.h"

namespace nsa {
namespace {

constexpr auto kNotNow = absl::StatusCode::kResourceExhausted;

Request MakeRequest(RequestId id, int64_t num_prompt_tokens, int64_t max_tokens) {
  return {.id = id,
          .prompt = std::vector<int32_t>(num_prompt_tokens, static_cast<int32_t>(id % 7)),
          .max_tokens = max_tokens};
}

class EngineLimitsTest : public testing::Test {
 protected:
  EngineLimitsTest() {
    executor_.on_step = [this](const Batch&) {
      std::unique_lock lock(mutex_);
      released_.wait(lock, [this] { return num_steps_allowed_ > 0; });
      --num_steps_allowed_;
      return absl::OkStatus();
    };
  }
  ~EngineLimitsTest() override {
    Allow(1'000'000);
    engine_.reset();
  }
  void Start(const AdmissionLimits& limits) {
    engine_ = std::make_unique<Engine>(EngineOptions{.admission = limits}, &executor_);
  }
  void Allow(int64_t num_steps) {
    const std::lock_guard lock(mutex_);
    num_steps_allowed_ += num_steps;
    released_.notify_all();
  }
  // Lets a step happen, unless one is still allowed.
  void AllowOne() {
    const std::lock_guard lock(mutex_);
    num_steps_allowed_ = 1;
    released_.notify_all();
  }
  absl::StatusCode Submit(const Request& request) {
    return engine_->Submit({request}, sink_).code();
  }
  void WaitFor(const std::function<bool(const EngineStats&)>& is_met) const {
    while (!is_met(engine_->Stats())) std::this_thread::yield();
  }

  std::mutex mutex_;
  std::condition_variable released_;
  int64_t num_steps_allowed_ = 0;
  FakeExecutor executor_{{.page_tokens = 4,
                          .num_pages = 8,
                          .max_num_seqs = 2,
                          .max_chunk_tokens = 16,
                          .max_batched_tokens = 32,
                          .vocab_size = 1000},
                         /*max_steps_ahead=*/0};
  std::shared_ptr<CollectingSink> sink_ = std::make_shared<CollectingSink>();
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineLimitsTest, AReservationIsAPlaceInTheQueue) {
  Start({.max_queued_requests = 3, .max_concurrent_requests = 3});
  auto place = engine_->Reserve({.num_requests = 2, .num_tokens = 1}).value();
  EXPECT_EQ(engine_->Stats().num_preparing, 2);
  EXPECT_EQ(engine_->Stats().num_waiting, 0);
  EXPECT_EQ(engine_->Stats().num_admitted, 0);
  EXPECT_EQ(engine_->Reserve({.num_requests = 2}).status().code(), kNotNow);
  EXPECT_EQ(engine_->Stats().num_rejected[0], 2);
  auto part = place->Split({.num_requests = 1});
  place.reset();
  EXPECT_EQ(engine_->Stats().num_preparing, 1);
  part.reset();
  EXPECT_EQ(engine_->Stats().num_preparing, 0);
  EXPECT_TRUE(engine_->Reserve({.num_requests = 3}).ok());
  EXPECT_EQ(engine_->Stats().num_preparing, 0);  // nobody kept it
}

TEST_F(EngineLimitsTest, ASubmissionUsesItsPlaceUp) {
  Start({.max_queued_requests = 1});
  const auto place = engine_->Reserve({.num_requests = 1, .num_tokens = 1}).value();
  EXPECT_EQ(Submit(MakeRequest(1, 3, 1)), kNotNow);
  ASSERT_TRUE(place->SetTokens(3).ok());
  ASSERT_TRUE(engine_->Submit({MakeRequest(2, 3, 1)}, sink_, *place).ok());
  EXPECT_EQ(engine_->Stats().num_preparing, 0);
  EXPECT_EQ(engine_->Stats().num_admitted, 1);
  Allow(100);
  sink_->WaitForEnds(1);
  engine_->Drain(absl::InfiniteFuture());
  EXPECT_EQ(engine_->Stats().num_waiting, 0);
}

TEST_F(EngineLimitsTest, AnInvalidRequestLeavesItsPlace) {
  Start({});
  const auto place = engine_->Reserve({.num_requests = 1, .num_tokens = 100}).value();
  EXPECT_EQ(engine_->Submit({MakeRequest(1, 100, 1)}, sink_, *place).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(engine_->Stats().num_preparing, 1);
}

TEST_F(EngineLimitsTest, TokensAreCheckedWhenTheyAreKnown) {
  Start({.max_queued_tokens = 20});
  const auto first = engine_->Reserve({.num_requests = 1, .num_tokens = 1}).value();
  EXPECT_TRUE(first->SetTokens(25).ok());  // alone it may have any number
  EXPECT_TRUE(first->SetTokens(15).ok());
  const auto second = engine_->Reserve({.num_requests = 2, .num_tokens = 1}).value();
  EXPECT_EQ(second->SetTokens(6).code(), kNotNow);
  EXPECT_EQ(engine_->Stats().num_rejected[static_cast<size_t>(RejectReason::kQueuedTokens)], 2);
  EXPECT_TRUE(second->SetTokens(5).ok());
}

TEST_F(EngineLimitsTest, ADrainLetsWhatIsReservedIn) {
  Start({});
  auto place = engine_->Reserve({.num_requests = 1, .num_tokens = 3}).value();
  std::thread drain([&] { engine_->Drain(absl::InfiniteFuture()); });
  WaitFor([](const EngineStats& stats) { return stats.draining; });
  EXPECT_EQ(engine_->Reserve({.num_requests = 1}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(engine_->Submit({MakeRequest(1, 3, 2)}, sink_, *place).ok());
  Allow(100);
  drain.join();
  EXPECT_EQ(sink_->FinishOf(1), FinishReason::kLength);
}

TEST_F(EngineLimitsTest, AfterItsDeadlineADrainWaitsForPlacesButLetsNothingIn) {
  Start({});
  auto place = engine_->Reserve({.num_requests = 1, .num_tokens = 3}).value();
  std::future<void> drain =
      std::async(std::launch::async, [&] { engine_->Drain(absl::InfinitePast()); });
  absl::StatusCode code = absl::StatusCode::kOk;
  while (code == absl::StatusCode::kOk) {
    auto other = place->Split({});
    code = engine_->Submit({}, sink_, *other).code();
  }
  EXPECT_EQ(code, absl::StatusCode::kUnavailable);
  EXPECT_EQ(drain.wait_for(std::chrono::milliseconds(20)), std::future_status::timeout);
  place.reset();
  drain.get();
}

// Two that grow until one gives its pages back. It was let in before, so its prompt does not stand
// in the way of others.
TEST_F(EngineLimitsTest, ThePromptOfAPreemptedRequestDoesNotWait) {
  Start({.max_queued_tokens = 10});
  for (const RequestId id : {1, 2}) {
    ASSERT_EQ(engine_->Submit({MakeRequest(id, 9, 20)}, sink_), absl::OkStatus());
    WaitFor([&](const EngineStats& stats) {
      AllowOne();
      return stats.num_running == static_cast<int64_t>(id);
    });
  }
  WaitFor([this](const EngineStats& stats) {
    if (stats.num_preemptions == 0) AllowOne();
    return stats.num_preemptions > 0 && stats.num_waiting == 1;
  });
  EXPECT_EQ(Submit(MakeRequest(3, 10, 1)), absl::StatusCode::kOk);
  EXPECT_EQ(Submit(MakeRequest(4, 1, 1)), kNotNow);  // for request 3 does wait
}

}  // namespace
}  // namespace nsa
