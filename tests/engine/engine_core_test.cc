#include "engine/engine_core.h"

#include <memory>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/byte_constraint.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/fake_executor.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr ExecutorLimits kLimits{.page_tokens = 4,
                                 .num_pages = 16,
                                 .max_num_seqs = 4,
                                 .max_chunk_tokens = 8,
                                 .max_batched_tokens = 16,
                                 .vocab_size = 1000};

Request MakeRequest(RequestId id, int64_t num_prompt_tokens, int64_t max_tokens,
                    absl::Time arrived = absl::InfiniteFuture()) {
  Request request{.id = id, .max_tokens = max_tokens};
  for (int64_t i = 0; i < num_prompt_tokens; ++i) {
    request.prompt.push_back(static_cast<int32_t>((31 * id + 7 * i) % kLimits.vocab_size));
  }
  request.sampling.seed = id;
  request.arrived = arrived;
  return request;
}

// The parameter: how many steps the executor runs ahead. The clock moves by a second every step.
class EngineCoreTest : public testing::TestWithParam<int> {
 protected:
  void Start(const ExecutorLimits& limits) {
    executor_ = std::make_unique<FakeExecutor>(limits, GetParam());
    executor_->on_step = [this](const Batch&) {
      now_ += absl::Seconds(1);
      return step_status_;
    };
    core_ = std::make_unique<EngineCore>(executor_.get(), 64, [this] { return now_; });
  }

  void Submit(const Request& request) { core_->Submit(request, sink_, now_); }

  void Step() {
    for (const Delivery& told : core_->Step().deliveries) told.sink->OnToken(told.event);
    EXPECT_EQ(executor_->violation(), "");
  }

  void StepUntilIdle() {
    for (int i = 0; i < 1000 && !core_->idle(); ++i) Step();
    ASSERT_TRUE(core_->idle());
  }

  absl::Time now_ = absl::FromUnixSeconds(1000);
  absl::Status step_status_;
  std::shared_ptr<CollectingSink> sink_ = std::make_shared<CollectingSink>();
  std::unique_ptr<FakeExecutor> executor_;
  std::unique_ptr<EngineCore> core_;
};

TEST_P(EngineCoreTest, OneRequestGetsItsTokensOneByOneAndThenItsEnd) {
  Start(kLimits);
  const Request request = MakeRequest(1, 5, 4);
  Submit(request);
  StepUntilIdle();
  EXPECT_EQ(sink_->TokensOf(1), FakeContinuation(request, kLimits.vocab_size));
  const std::vector<TokenEvent> events = sink_->EventsOf(1);
  ASSERT_EQ(events.size(), 4U);
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_TRUE(events[i].has_token);
    EXPECT_EQ(events[i].finish, i == 3 ? FinishReason::kLength : FinishReason::kNone);
    EXPECT_EQ(events[i].num_prompt_tokens_done, 5);
  }
}

TEST_P(EngineCoreTest, OutputIsTheSameForChunkedBatchedAndPreemptedRuns) {
  for (int64_t num_pages : {6, 8, 64}) {
    for (int64_t max_chunk_tokens : {1, 3, 64}) {
      ExecutorLimits limits = kLimits;
      limits.num_pages = num_pages;
      limits.max_chunk_tokens = max_chunk_tokens;
      Start(limits);
      sink_ = std::make_shared<CollectingSink>();
      for (RequestId id = 0; id < 4; ++id) Submit(MakeRequest(id, 3 + 3 * id, 12));
      StepUntilIdle();
      for (RequestId id = 0; id < 4; ++id) {
        EXPECT_EQ(sink_->TokensOf(id),
                  FakeContinuation(MakeRequest(id, 3 + 3 * id, 12), limits.vocab_size));
      }
      EXPECT_EQ(core_->stats().num_preemptions > 0, num_pages < 64);
    }
  }
}

TEST_P(EngineCoreTest, ALongPromptReportsItsProgress) {
  Start(kLimits);
  Submit(MakeRequest(1, 20, 1));
  StepUntilIdle();
  const std::vector<TokenEvent> events = sink_->EventsOf(1);
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[0].num_prompt_tokens_done, 8);
  EXPECT_EQ(events[1].num_prompt_tokens_done, 16);
  EXPECT_EQ(events[2].num_prompt_tokens_done, 20);
  EXPECT_FALSE(events[0].has_token || events[1].has_token);
  EXPECT_EQ(events[1].finish, FinishReason::kNone);
  EXPECT_TRUE(events[2].has_token);
}

TEST_P(EngineCoreTest, ProgressNeverFallsWhenAPrefillIsPreempted) {
  Start({.page_tokens = 1,
         .num_pages = 24,
         .max_num_seqs = 4,
         .max_chunk_tokens = 2,
         .max_batched_tokens = 4,
         .vocab_size = 1000});
  Submit(MakeRequest(1, 2, 20));
  Submit(MakeRequest(2, 20, 2));
  StepUntilIdle();
  const std::vector<TokenEvent> events = sink_->EventsOf(2);
  ASSERT_GT(events.back().times.num_preemptions, 0);
  for (size_t i = 1; i < events.size(); ++i) {
    EXPECT_GE(events[i].num_prompt_tokens_done, events[i - 1].num_prompt_tokens_done);
    if (!events[i].has_token) {
      EXPECT_GT(events[i].num_prompt_tokens_done, events[i - 1].num_prompt_tokens_done);
    }
  }
}

TEST_P(EngineCoreTest, TimesAndHistogramsFollowTheClock) {
  ExecutorLimits limits = kLimits;
  limits.max_num_seqs = 1;
  Start(limits);
  Submit(MakeRequest(1, 8, 1));
  now_ += absl::Seconds(2);
  Submit(MakeRequest(2, 16, 3, now_ - absl::Seconds(10)));
  StepUntilIdle();
  const RequestTimes times = sink_->EventsOf(2).back().times;
  EXPECT_EQ(times.arrived, absl::FromUnixSeconds(992));
  EXPECT_EQ(times.scheduled, absl::FromUnixSeconds(1003));
  EXPECT_EQ(times.first_token, absl::FromUnixSeconds(1005));
  EXPECT_EQ(times.finished, absl::FromUnixSeconds(1007));
  const EngineStats& stats = core_->stats();
  EXPECT_DOUBLE_EQ(stats.queue_time.sum, 2 + 1);
  EXPECT_DOUBLE_EQ(stats.time_to_first_token.sum, 3 + 13);
  EXPECT_DOUBLE_EQ(stats.prefill_time.sum, 1 + 2);
  EXPECT_DOUBLE_EQ(stats.decode_time.sum, 0 + 2);
  EXPECT_DOUBLE_EQ(stats.e2e_latency.sum, 3 + 15);
  EXPECT_DOUBLE_EQ(stats.inter_token_latency.sum, 2);
  EXPECT_EQ(stats.inter_token_latency.total(), 2U);
  EXPECT_DOUBLE_EQ(stats.request_prompt_tokens.sum, 24);
  EXPECT_DOUBLE_EQ(stats.request_generated_tokens.sum, 4);
  EXPECT_DOUBLE_EQ(stats.step_tokens.sum, 8 + 8 + 8 + 1 + 1);
  EXPECT_DOUBLE_EQ(stats.step_seconds.sum, 5);
  EXPECT_EQ(stats.num_steps, 5);
  EXPECT_EQ(stats.num_prompt_tokens, 24);
  EXPECT_EQ(stats.num_generated_tokens, 4);
  EXPECT_EQ(stats.num_finished[static_cast<size_t>(FinishReason::kLength)], 2);
  EXPECT_EQ(stats.last_step_finished, now_);
}

TEST_P(EngineCoreTest, DecodeStepsAreChargedTheirTraffic) {
  Start(kLimits);
  Submit(MakeRequest(1, 5, 4));
  StepUntilIdle();
  KvTraffic expected;
  for (int64_t num_tokens : {6, 7, 8}) {
    expected.read_bytes += executor_->DecodeTraffic(num_tokens).read_bytes;
    expected.dense_bytes += executor_->DecodeTraffic(num_tokens).dense_bytes;
  }
  EXPECT_EQ(sink_->EventsOf(1)[0].traffic.dense_bytes, 0);
  EXPECT_EQ(sink_->EventsOf(1).back().traffic.read_bytes, expected.read_bytes);
  EXPECT_EQ(sink_->EventsOf(1).back().traffic.dense_bytes, expected.dense_bytes);
  EXPECT_EQ(core_->stats().traffic.dense_bytes, expected.dense_bytes);
}

TEST_P(EngineCoreTest, CancelFreesPagesAtOnceAndReportsWithTheNextStep) {
  Start(kLimits);
  Submit(MakeRequest(1, 20, 4));
  Step();
  core_->Cancel(1);
  EXPECT_EQ(core_->stats().num_free_pages, kLimits.num_pages);
  EXPECT_EQ(core_->stats().num_running, 0);
  EXPECT_FALSE(core_->idle());
  core_->Cancel(1);
  Step();
  EXPECT_TRUE(core_->idle());
  EXPECT_EQ(sink_->FinishOf(1), FinishReason::kCancelled);
  EXPECT_EQ(sink_->num_finished(), 1);
  EXPECT_EQ(core_->stats().num_steps, 1);
}

TEST_P(EngineCoreTest, ARequestThatWasNeverScheduledEndsWithAllTimesAtItsEnd) {
  Start(kLimits);
  Submit(MakeRequest(1, 20, 4));
  now_ += absl::Seconds(3);
  core_->CancelAll();
  Step();
  const TokenEvent event = sink_->EventsOf(1).back();
  EXPECT_EQ(event.times.scheduled, now_);
  EXPECT_EQ(event.times.first_token, now_);
  EXPECT_EQ(event.times.finished, now_);
  EXPECT_FALSE(event.has_token);
  EXPECT_EQ(core_->stats().queue_time.total(), 0U);
  EXPECT_EQ(core_->stats().e2e_latency.total(), 1U);
}

TEST_P(EngineCoreTest, ADeadlineEndsTheRequestWithItsTokensSoFar) {
  Start(kLimits);
  Request request = MakeRequest(1, 5, 10);
  request.deadline = now_ + absl::Seconds(3);
  Submit(request);
  StepUntilIdle();
  EXPECT_EQ(sink_->TokensOf(1).size(), 3U);
  EXPECT_EQ(sink_->FinishOf(1), FinishReason::kTimeout);
  EXPECT_TRUE(sink_->EventsOf(1).back().error.ok());
}

TEST_P(EngineCoreTest, AStepErrorEndsItsSequencesOnlyAndTellsNothingInternal) {
  ExecutorLimits limits = kLimits;
  limits.max_num_seqs = 2;
  Start(limits);
  for (RequestId id = 1; id <= 3; ++id) Submit(MakeRequest(id, 4, 4));
  step_status_ = absl::UnknownError("device 7 at 0xdeadbeef");
  if (GetParam() > 0) Step();
  const StepOutcome outcome = core_->Step();
  EXPECT_EQ(outcome.status.message(),
            "device 7 at 0xdeadbeef (a step of 8 tokens of 2 sequences, the longest of 4)");
  EXPECT_FALSE(outcome.lost);
  for (const Delivery& delivery : outcome.deliveries) delivery.sink->OnToken(delivery.event);
  step_status_ = absl::OkStatus();
  for (RequestId id : {1, 2}) {
    const TokenEvent event = sink_->EventsOf(id).back();
    EXPECT_EQ(event.finish, FinishReason::kError);
    EXPECT_EQ(event.error.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(event.error.message()), Not(HasSubstr("device")));
  }
  StepUntilIdle();
  EXPECT_EQ(sink_->TokensOf(3), FakeContinuation(MakeRequest(3, 4, 4), kLimits.vocab_size));
  EXPECT_EQ(core_->stats().num_free_pages, kLimits.num_pages);
}

TEST_P(EngineCoreTest, LogitsThatAreNotFiniteEndTheirSequenceOnly) {
  Start(kLimits);
  executor_->is_finite = [](const SampleRow& row) {
    return row.params.seed != 2 || row.position < 6;
  };
  for (RequestId id = 1; id <= 3; ++id) Submit(MakeRequest(id, 4, 4));
  for (int step = 0; step < 2 + GetParam(); ++step) Step();
  const StepOutcome outcome = core_->Step();
  EXPECT_THAT(std::string(outcome.status.message()), HasSubstr("1 of 3 rows"));
  for (const Delivery& delivery : outcome.deliveries) delivery.sink->OnToken(delivery.event);
  StepUntilIdle();
  EXPECT_EQ(sink_->TokensOf(2).size(), 2U);
  EXPECT_EQ(sink_->FinishOf(2), FinishReason::kError);
  EXPECT_EQ(sink_->EventsOf(2).back().error.code(), absl::StatusCode::kInternal);
  for (RequestId id : {1, 3}) {
    EXPECT_EQ(sink_->TokensOf(id), FakeContinuation(MakeRequest(id, 4, 4), kLimits.vocab_size));
  }
}

TEST_P(EngineCoreTest, LogprobsComeWhereAskedFor) {
  Start(kLimits);
  Request with = MakeRequest(1, 4, 2);
  with.num_top_logprobs = 2;
  Submit(with);
  Submit(MakeRequest(2, 4, 2));
  StepUntilIdle();
  EXPECT_EQ(sink_->EventsOf(1)[0].top_logprobs.size(), 2U);
  EXPECT_EQ(
      sink_->EventsOf(1)[0].logprob,
      FakeSample(with.prompt, {}, {.params = with.sampling, .position = 4, .num_top_logprobs = 2},
                 kLimits.vocab_size)
          .logprob);
  EXPECT_THAT(sink_->EventsOf(2)[0].top_logprobs, IsEmpty());
}

TEST_P(EngineCoreTest, AnIdOfALiveRequestIsAProgrammerErrorAndOfAFinishedOneIsNot) {
  Start(kLimits);
  Submit(MakeRequest(1, 4, 1));
  EXPECT_DEATH(Submit(MakeRequest(1, 4, 1)), "request id 1 is live already");
  StepUntilIdle();
  Submit(MakeRequest(1, 4, 1));
  StepUntilIdle();
  EXPECT_EQ(sink_->num_finished(), 2);
}

TEST_P(EngineCoreTest, ALostExecutorEndsEveryRequest) {
  ExecutorLimits limits = kLimits;
  limits.max_num_seqs = 2;
  Start(limits);
  for (RequestId id = 1; id <= 4; ++id) Submit(MakeRequest(id, 4, 8));
  for (int step = 0; step < 2 + GetParam(); ++step) Step();
  executor_->Lose();
  const StepOutcome outcome = core_->Step();
  EXPECT_TRUE(outcome.lost);
  EXPECT_THAT(std::string(outcome.status.message()),
              HasSubstr("a step of 2 tokens of 2 sequences, the longest of "));
  for (const Delivery& delivery : outcome.deliveries) delivery.sink->OnToken(delivery.event);
  EXPECT_TRUE(core_->idle());
  for (RequestId id = 1; id <= 4; ++id) {
    EXPECT_EQ(sink_->FinishOf(id), FinishReason::kError);
    EXPECT_EQ(sink_->EventsOf(id).back().error.code(), absl::StatusCode::kInternal);
  }
  EXPECT_EQ(sink_->num_finished(), 4);
  EXPECT_EQ(core_->stats().num_free_pages, kLimits.num_pages);
  EXPECT_EQ(core_->stats().num_running + core_->stats().num_waiting, 0);
}

// Running ahead, the step behind the stop token computes a token that nobody wants.
TEST_P(EngineCoreTest, WhatFollowsAStopTokenIsDropped) {
  Start(kLimits);
  int64_t num_rows = 0;
  executor_->on_step = [&num_rows](const Batch& batch) {
    num_rows += batch.num_rows();
    return absl::OkStatus();
  };
  Request request = MakeRequest(1, 5, 8);
  const std::vector<int32_t> all = FakeContinuation(request, kLimits.vocab_size);
  request.stop_token_ids = {all[2]};
  Submit(request);
  StepUntilIdle();
  EXPECT_EQ(sink_->TokensOf(1), std::vector<int32_t>(all.begin(), all.begin() + 3));
  EXPECT_EQ(sink_->FinishOf(1), FinishReason::kStop);
  EXPECT_EQ(num_rows, 3 + GetParam());
  EXPECT_EQ(core_->stats().num_generated_tokens, 3);
  EXPECT_EQ(core_->stats().num_free_pages, kLimits.num_pages);
}

TEST_P(EngineCoreTest, NothingIsComputedBehindTheLastTokenARequestMayHave) {
  Start(kLimits);
  int64_t num_rows = 0;
  executor_->on_step = [&num_rows](const Batch& batch) {
    num_rows += batch.num_rows();
    return absl::OkStatus();
  };
  Submit(MakeRequest(1, 5, 4));
  StepUntilIdle();
  EXPECT_EQ(sink_->TokensOf(1).size(), 4U);
  EXPECT_EQ(num_rows, 4);
}

Request MakeConstrained(RequestId id, int64_t max_tokens, const std::string& regex) {
  Request request = MakeRequest(id, 3 + 3 * static_cast<int64_t>(id), max_tokens);
  request.constraint = ByteRegex(regex);
  return request;
}

TEST_P(EngineCoreTest, AConstraintIsFollowedAloneAndPreempted) {
  const std::string regex = "[a-z]{6}[0-9]{0,6}";
  for (int64_t num_pages : {6, 64}) {
    ExecutorLimits limits = kLimits;
    limits.num_pages = num_pages;
    Start(limits);
    sink_ = std::make_shared<CollectingSink>();
    for (RequestId id = 0; id < 4; ++id) Submit(MakeConstrained(id, 12, regex));
    StepUntilIdle();
    for (RequestId id = 0; id < 4; ++id) {
      const Request request = MakeConstrained(id, 12, regex);
      EXPECT_EQ(sink_->TokensOf(id), FakeContinuation(request, limits.vocab_size));
      EXPECT_EQ(sink_->FinishOf(id), FinishReason::kStop);
    }
    EXPECT_EQ(core_->stats().num_preemptions > 0, num_pages == 6);
  }
}

TEST_P(EngineCoreTest, ATokenThatNothingMayFollowIsTheLastOneAndPartOfTheAnswer) {
  Start(kLimits);
  Submit(MakeConstrained(1, 2, "ab"));
  Submit(MakeConstrained(2, 9, "a(?:b|)"));
  StepUntilIdle();
  EXPECT_EQ(sink_->TokensOf(1), (std::vector<int32_t>{'a', 'b'}));
  EXPECT_TRUE(sink_->EventsOf(1).back().completes_answer);
  EXPECT_EQ(sink_->EventsOf(2).back().completes_answer, sink_->TokensOf(2).back() == 'b');
}

TEST_P(EngineCoreTest, AConstraintThatCannotBeFollowedEndsItsRequestAlone) {
  Request dead_end = MakeRequest(1, 5, 9);
  const auto tokens = TokenTable::Create(std::vector<std::string>{"a", "b"}, {}).value();
  dead_end.constraint = ConstraintCompiler(tokens, {}, 1)
                            .Compile({.kind = ConstraintKind::kChoice, .choices = {"ac"}})
                            .value();
  Start(kLimits);
  Submit(dead_end);
  Submit(MakeRequest(2, 5, 4));
  StepUntilIdle();
  EXPECT_EQ(sink_->TokensOf(1), std::vector<int32_t>{0});
  EXPECT_EQ(sink_->FinishOf(1), FinishReason::kError);
  EXPECT_EQ(sink_->EventsOf(1).back().error.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(sink_->TokensOf(2), FakeContinuation(MakeRequest(2, 5, 4), kLimits.vocab_size));
}

INSTANTIATE_TEST_SUITE_P(StepsAhead, EngineCoreTest, testing::Values(0, 1));

}  // namespace
}  // namespace nsa
