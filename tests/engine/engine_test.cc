#include "engine/engine.h"

#include <atomic>
#include <ctime>
#include <memory>
#include <thread>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/fake_executor.h"

namespace nsa {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr ExecutorLimits kLimits{.page_tokens = 4,
                                 .num_pages = 16,
                                 .max_num_seqs = 2,
                                 .max_chunk_tokens = 8,
                                 .max_batched_tokens = 16,
                                 .vocab_size = 1000};

Request MakeRequest(RequestId id, int64_t num_prompt_tokens, int64_t max_tokens) {
  Request request{.id = id, .max_tokens = max_tokens};
  for (int64_t i = 0; i < num_prompt_tokens; ++i) {
    request.prompt.push_back(static_cast<int32_t>((13 * id + 5 * i) % 1000));
  }
  return request;
}

// Holds the engine thread inside a step until it is opened.
class Gate {
 public:
  void Close() { Set(false); }
  void Open() { Set(true); }
  void Pass() {
    std::unique_lock lock(mutex_);
    ++num_arrived_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void WaitForArrivals(int64_t num_arrived) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return num_arrived_ >= num_arrived; });
  }

 private:
  void Set(bool open) {
    const std::lock_guard lock(mutex_);
    open_ = open;
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = true;
  int64_t num_arrived_ = 0;
};

// The parameter is how many steps the executor runs ahead.
class EngineTest : public testing::TestWithParam<int> {
 protected:
  EngineTest() {
    executor_.on_step = [this](const Batch&) {
      gate_.Pass();
      return absl::OkStatus();
    };
  }

  ~EngineTest() override {
    gate_.Open();
    engine_.reset();
    EXPECT_EQ(executor_.violation(), "");
  }

  void Start(EngineOptions options = {}) {
    engine_ = std::make_unique<Engine>(options, &executor_);
  }

  absl::Status Submit(std::vector<Request> requests) {
    return engine_->Submit(std::move(requests), sink_);
  }

  // Puts request 1000 into a step that does not end before the gate opens.
  void Occupy() {
    gate_.Close();
    ASSERT_TRUE(Submit({MakeRequest(1000, 1, 2)}).ok());
    gate_.WaitForArrivals(1);
  }

  Gate gate_;
  FakeExecutor executor_{kLimits, GetParam()};
  std::shared_ptr<CollectingSink> sink_ = std::make_shared<CollectingSink>();
  std::unique_ptr<Engine> engine_;
};

int64_t NumFinished(const EngineStats& stats, FinishReason reason) {
  return stats.num_finished[static_cast<size_t>(reason)];
}

TEST_P(EngineTest, ServesRequestsAndCountsThemBeforeTheSinkHears) {
  Start();
  ASSERT_TRUE(Submit({MakeRequest(1, 3, 5), MakeRequest(2, 20, 4)}).ok());
  sink_->WaitForEnds(2);
  const EngineStats stats = engine_->Stats();
  EXPECT_EQ(sink_->TokensOf(1), FakeContinuation(MakeRequest(1, 3, 5), 1000));
  EXPECT_EQ(sink_->TokensOf(2), FakeContinuation(MakeRequest(2, 20, 4), 1000));
  EXPECT_EQ(stats.num_admitted, 2);
  EXPECT_EQ(NumFinished(stats, FinishReason::kLength), 2);
  EXPECT_EQ(stats.num_generated_tokens, 9);
  EXPECT_EQ(stats.num_prompt_tokens, 23);
  EXPECT_EQ(stats.num_running, 0);
  EXPECT_EQ(stats.num_waiting, 0);
  EXPECT_EQ(stats.num_free_pages, kLimits.num_pages);
  EXPECT_FALSE(stats.draining);
}

TEST_P(EngineTest, RefusesWhatItCannotServeAndQueuesNoneOfTheSubmission) {
  Start({.max_model_tokens = 32});
  EXPECT_EQ(engine_->max_request_tokens(), 32);
  const absl::Status status = Submit({MakeRequest(1, 3, 5), MakeRequest(2, 30, 3)});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("32 tokens"));
  EXPECT_EQ(engine_->Stats().num_admitted, 0);
  EXPECT_EQ(engine_->Stats().num_waiting, 0);
  ASSERT_TRUE(Submit({MakeRequest(1, 3, 5)}).ok());
  sink_->WaitForEnds(1);
}

TEST_P(EngineTest, AFullQueueRefusesAllOfASubmissionOrNone) {
  Start({.admission = {.max_queued_requests = 3}});
  Occupy();
  EXPECT_TRUE(Submit({MakeRequest(1, 1, 1)}).ok());
  const absl::Status status =
      Submit({MakeRequest(2, 1, 1), MakeRequest(3, 1, 1), MakeRequest(4, 1, 1)});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("of at most 3"));
  EXPECT_EQ(engine_->Stats().num_waiting + engine_->Stats().num_running, 2);
  EXPECT_EQ(engine_->Stats().num_rejected[0], 3);
  EXPECT_TRUE(Submit({MakeRequest(5, 1, 1)}).ok());
  // Running ahead, request 1000 is known to run by now, and leaves its place in the queue.
  for (int i = 0; i < GetParam(); ++i) EXPECT_TRUE(Submit({MakeRequest(7, 1, 1)}).ok());
  EXPECT_EQ(Submit({MakeRequest(6, 1, 1)}).code(), absl::StatusCode::kResourceExhausted);
  gate_.Open();
  sink_->WaitForEnds(3 + GetParam());
  EXPECT_EQ(engine_->Stats().num_admitted, 3 + GetParam());
  EXPECT_TRUE(sink_->EventsOf(2).empty());
}

TEST_P(EngineTest, CancelReachesRequestsThatRunWaitOrAreStillInTheInbox) {
  Start();
  Occupy();
  ASSERT_TRUE(Submit({MakeRequest(1, 4, 50), MakeRequest(2, 4, 50)}).ok());
  for (RequestId id : {1, 2, 1000}) engine_->Cancel(id);
  engine_->Cancel(1);
  engine_->Cancel(77);
  gate_.Open();
  sink_->WaitForEnds(3);
  for (RequestId id : {1, 2, 1000}) EXPECT_EQ(sink_->FinishOf(id), FinishReason::kCancelled);
  EXPECT_EQ(sink_->TokensOf(1000).size(), 1U);
  EXPECT_TRUE(sink_->TokensOf(1).empty());
  EXPECT_EQ(NumFinished(engine_->Stats(), FinishReason::kCancelled), 3);
  EXPECT_EQ(engine_->Stats().num_free_pages, kLimits.num_pages);
}

TEST_P(EngineTest, CancelOfAFinishedIdDoesNotTouchItsNextUse) {
  Start();
  for (int round = 1; round <= 3; ++round) {
    ASSERT_TRUE(Submit({MakeRequest(7, 4, 3)}).ok());
    sink_->WaitForEnds(round);
    EXPECT_EQ(sink_->FinishOf(7), FinishReason::kLength);
    engine_->Cancel(7);
  }
}

// A sink may cancel from inside OnToken.
class OneTokenSink : public CollectingSink {
 public:
  explicit OneTokenSink(Engine* engine) : engine_(engine) {}
  void OnToken(const TokenEvent& event) override {
    CollectingSink::OnToken(event);
    if (event.has_token) engine_->Cancel(event.id);
  }

 private:
  Engine* engine_;
};

TEST_P(EngineTest, ASinkMayCancel) {
  Start();
  const auto sink = std::make_shared<OneTokenSink>(engine_.get());
  ASSERT_TRUE(engine_->Submit({MakeRequest(1, 4, 50)}, sink).ok());
  sink->WaitForEnds(1);
  EXPECT_EQ(sink->FinishOf(1), FinishReason::kCancelled);
  EXPECT_EQ(sink->TokensOf(1).size(), 1U);
}

// Holds the engine thread when a request ends.
class GatedSink : public CollectingSink {
 public:
  explicit GatedSink(Gate* gate) : gate_(gate) {}
  void OnToken(const TokenEvent& event) override {
    if (event.finish != FinishReason::kNone) gate_->Pass();
    CollectingSink::OnToken(event);
  }

 private:
  Gate* gate_;
};

TEST_P(EngineTest, ACancellationThatCameTooLateDoesNotTouchTheNextUseOfItsId) {
  Start();
  Gate end_reported;
  end_reported.Close();
  gate_.Close();
  const auto sink = std::make_shared<GatedSink>(&end_reported);
  ASSERT_TRUE(engine_->Submit({MakeRequest(7, 4, 1)}, sink).ok());
  gate_.WaitForArrivals(1);
  engine_->Cancel(7);  // while its only token is computed
  gate_.Open();
  end_reported.WaitForArrivals(1);
  ASSERT_TRUE(Submit({MakeRequest(7, 4, 3)}).ok());
  end_reported.Open();
  sink_->WaitForEnds(1);
  EXPECT_EQ(sink->FinishOf(7), FinishReason::kLength);
  EXPECT_EQ(sink_->FinishOf(7), FinishReason::kLength);
}

TEST_P(EngineTest, DrainReturnsAfterTheSinkHasHeard) {
  Start();
  Gate end_reported;
  end_reported.Close();
  const auto sink = std::make_shared<GatedSink>(&end_reported);
  ASSERT_TRUE(engine_->Submit({MakeRequest(7, 4, 1)}, sink).ok());
  end_reported.WaitForArrivals(1);
  std::thread opener([&] {
    absl::SleepFor(absl::Milliseconds(30));
    end_reported.Open();
  });
  engine_->Drain(absl::InfiniteFuture());
  EXPECT_EQ(sink->num_finished(), 1);
  opener.join();
}

TEST_P(EngineTest, ADeadlineThatPassesInTheQueueEndsTheRequest) {
  Start();
  Occupy();
  Request request = MakeRequest(1, 4, 4);
  request.deadline = absl::Now();
  ASSERT_TRUE(Submit({request}).ok());
  gate_.Open();
  sink_->WaitForEnds(2);
  EXPECT_EQ(sink_->FinishOf(1), FinishReason::kTimeout);
}

TEST_P(EngineTest, DrainFinishesWhatIsThereAndRefusesTheRest) {
  Start();
  Occupy();
  ASSERT_TRUE(Submit({MakeRequest(1, 4, 6)}).ok());
  std::thread drainer([this] { engine_->Drain(absl::InfiniteFuture()); });
  while (!engine_->Stats().draining) std::this_thread::yield();
  EXPECT_EQ(Submit({MakeRequest(2, 4, 6)}).code(), absl::StatusCode::kUnavailable);
  gate_.Open();
  drainer.join();
  EXPECT_EQ(sink_->num_finished(), 2);
  EXPECT_EQ(sink_->FinishOf(1), FinishReason::kLength);
  engine_->Drain(absl::InfiniteFuture());
}

TEST_P(EngineTest, DrainCancelsAtItsDeadline) {
  Start();
  Occupy();
  ASSERT_TRUE(Submit({MakeRequest(1, 4, 6)}).ok());
  std::thread opener([this] {
    while (!engine_->Stats().draining) std::this_thread::yield();
    absl::SleepFor(absl::Milliseconds(20));
    gate_.Open();
  });
  engine_->Drain(absl::Now() + absl::Milliseconds(1));
  EXPECT_EQ(sink_->num_finished(), 2);
  EXPECT_EQ(sink_->FinishOf(1), FinishReason::kCancelled);
  opener.join();
}

TEST_P(EngineTest, ASecondDrainBringsTheDeadlineForward) {
  Start();
  Occupy();
  ASSERT_TRUE(Submit({MakeRequest(1, 4, 60 - 4)}).ok());
  std::thread patient([this] { engine_->Drain(absl::InfiniteFuture()); });
  std::thread hasty([this] { engine_->Drain(absl::InfinitePast()); });
  while (!engine_->Stats().draining) std::this_thread::yield();
  absl::SleepFor(absl::Milliseconds(20));
  gate_.Open();
  patient.join();
  hasty.join();
  EXPECT_EQ(sink_->FinishOf(1), FinishReason::kCancelled);
}

TEST_P(EngineTest, TheDestructorEndsEveryLiveRequest) {
  Start();
  Occupy();
  ASSERT_TRUE(Submit({MakeRequest(1, 4, 50), MakeRequest(2, 4, 50), MakeRequest(3, 4, 50)}).ok());
  std::thread opener([this] {
    absl::SleepFor(absl::Milliseconds(20));
    gate_.Open();
  });
  engine_.reset();
  opener.join();
  EXPECT_EQ(sink_->num_finished(), 4);
  for (RequestId id : {1, 2, 3}) EXPECT_EQ(sink_->FinishOf(id), FinishReason::kCancelled);
}

TEST_P(EngineTest, AnIdleEngineSleepsAndWakesForWork) {
  Start();
  const std::clock_t before = std::clock();
  absl::SleepFor(absl::Milliseconds(200));
  const double busy_seconds = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  EXPECT_LT(busy_seconds, 0.01);
  EXPECT_EQ(engine_->Stats().num_steps, 0);
  const absl::Time arrived = absl::Now();
  Occupy();
  // A step that has just begun must not look like one that hangs since the engine started.
  EXPECT_GE(engine_->Stats().last_step_finished, arrived);
  gate_.Open();
  sink_->WaitForEnds(1);
}

// Many clients at once, each with requests of its own that it may cancel.
TEST_P(EngineTest, ManyThreadsSubmitCancelAndRead) {
  constexpr int kNumThreads = 6;
  constexpr RequestId kRequestsPerThread = 60;
  Start({.admission = {.max_queued_requests = 20}});
  std::atomic<int64_t> num_accepted = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kNumThreads; ++t) {
    threads.emplace_back([&, t] {
      for (RequestId i = 0; i < kRequestsPerThread; ++i) {
        const RequestId id = t * kRequestsPerThread + i;
        const absl::Status status = Submit({MakeRequest(id, 1 + i % 17, 1 + i % 9)});
        if (status.ok()) ++num_accepted;
        EXPECT_THAT(status.code(),
                    AnyOf(absl::StatusCode::kOk, absl::StatusCode::kResourceExhausted));
        if (i % 4 == 0) engine_->Cancel(id);
        const EngineStats stats = engine_->Stats();
        EXPECT_LE(stats.num_waiting, 20);
        EXPECT_GE(stats.num_waiting, 0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  engine_->Drain(absl::InfiniteFuture());
  const EngineStats stats = engine_->Stats();
  EXPECT_EQ(sink_->num_finished(), num_accepted);
  EXPECT_EQ(stats.num_admitted, num_accepted);
  EXPECT_EQ(stats.num_admitted + stats.num_rejected[0],
            kNumThreads * static_cast<int64_t>(kRequestsPerThread));
  int64_t num_tokens = 0;
  for (RequestId id = 0; id < kNumThreads * kRequestsPerThread; ++id) {
    const std::vector<int32_t> tokens = sink_->TokensOf(id);
    num_tokens += static_cast<int64_t>(tokens.size());
    if (sink_->FinishOf(id) != FinishReason::kLength) continue;
    const RequestId i = id % kRequestsPerThread;
    EXPECT_EQ(tokens, FakeContinuation(MakeRequest(id, 1 + i % 17, 1 + i % 9), 1000));
  }
  EXPECT_EQ(stats.num_generated_tokens, num_tokens);
  EXPECT_EQ(
      NumFinished(stats, FinishReason::kLength) + NumFinished(stats, FinishReason::kCancelled),
      num_accepted);
  EXPECT_EQ(stats.num_running + stats.num_waiting, 0);
  EXPECT_EQ(stats.num_free_pages, kLimits.num_pages);
}

TEST_P(EngineTest, ALostExecutorIsReportedOnceAndNewRequestsAreRefused) {
  std::atomic<int> num_reports = 0;
  Start({.on_lost = [&num_reports] { ++num_reports; }});
  Occupy();
  ASSERT_TRUE(Submit({MakeRequest(1, 4, 6)}).ok());
  executor_.Lose();
  gate_.Open();
  sink_->WaitForEnds(2);
  EXPECT_EQ(sink_->FinishOf(1), FinishReason::kError);
  EXPECT_EQ(sink_->FinishOf(1000), FinishReason::kError);
  engine_->Drain(absl::InfiniteFuture());
  EXPECT_EQ(Submit({MakeRequest(2, 4, 6)}).code(), absl::StatusCode::kUnavailable);
  while (num_reports == 0) std::this_thread::yield();
  engine_.reset();
  EXPECT_EQ(num_reports, 1);
}

INSTANTIATE_TEST_SUITE_P(StepsAhead, EngineTest, testing::Values(0, 1));

}  // namespace
}  // namespace nsa
