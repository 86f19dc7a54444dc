#include "server/constraint_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <mutex>

#include "server/call_checks.h"
#include "server/error_detail.h"
#include "tests/support/service_harness.h"

namespace nsa {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Kind = GenerateEvent::Kind;
using Compiled = ConstraintQueue::Compiled;

std::shared_ptr<const ConstraintSpec> Regex(const std::string& source) {
  return std::make_shared<const ConstraintSpec>(
      ConstraintSpec{.kind = ConstraintKind::kRegex, .source = source});
}

// Compiles for as long as the limits of SlowQueue allow.
constexpr char kSlow[] = "[a-z ]{0,9000}";
ConstraintQueueOptions SlowQueue() {
  ConstraintQueueOptions options{.num_threads = 1};
  options.limits.max_compile_time = absl::Milliseconds(300);
  options.limits.warm_up_time = absl::Milliseconds(300);
  return options;
}

class ConstraintQueueTest : public testing::Test {
 protected:
  void Start(const ConstraintQueueOptions& options) {
    const FakeTokenizer tokenizer;
    queue_ = std::make_unique<ConstraintQueue>(
        TokenTable::Create(tokenizer, std::vector<int32_t>{FakeTokenizer::kEos}).value(), options);
  }
  ConstraintQueue::Ticket Order(const std::string& regex, ConstraintQueue::Done done,
                                absl::Time deadline = absl::InfiniteFuture(),
                                const std::string& caller = "") {
    return queue_->Compile(
        {.place = queue_->Reserve(caller, 1).value(), .spec = Regex(regex), .deadline = deadline},
        std::move(done));
  }
  Compiled Compile(const std::string& regex, absl::Time deadline = absl::InfiniteFuture()) {
    std::promise<Compiled> promise;
    Order(
        regex, [&](Compiled compiled) { promise.set_value(std::move(compiled)); }, deadline);
    return promise.get_future().get();
  }
  void WaitUntilBegun() const {
    while (queue_->num_waiting() > 0) absl::SleepFor(absl::Milliseconds(1));
  }
  std::unique_ptr<ConstraintQueue> queue_;
};

TEST_F(ConstraintQueueTest, CompilesOnceAndKeeps) {
  Start({});
  EXPECT_FALSE(queue_->Find(*Regex("a+")).has_value());
  const Compiled first = Compile("a+");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(**queue_->Find(*Regex("a+")), *first);
  EXPECT_EQ(*Compile("a+"), *first);
  EXPECT_EQ(queue_->num_cached(), 1);
  EXPECT_THAT(std::string(Compile("(").status().message()), HasSubstr("without ')'"));
  EXPECT_THAT(std::string(queue_->Find(*Regex("("))->status().message()), HasSubstr("without ')'"));
}

TEST_F(ConstraintQueueTest, APlaceIsKeptUntilTheAnswer) {
  Start({.places = {.max_places = 2}, .num_threads = 0});
  const auto first = Order("a", [](const Compiled&) { FAIL(); });
  Order("a", [](const Compiled&) { FAIL(); });
  EXPECT_EQ(queue_->num_waiting(), 2);
  EXPECT_EQ(queue_->Reserve("", 4).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(queue_->num_rejected(), 4);
  queue_->Cancel(first);
  EXPECT_TRUE(queue_->Reserve("", 1).ok());
}

TEST_F(ConstraintQueueTest, ACancelledTicketLeavesNothingBehind) {
  Start({.num_threads = 0});
  auto held = std::make_shared<int>(0);
  const auto ticket = Order("a", [held](const Compiled&) { FAIL(); });
  EXPECT_EQ(held.use_count(), 2);
  queue_->Cancel(ticket);
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_EQ(queue_->num_waiting(), 0);
  queue_->Cancel(ticket);
  queue_->Cancel(ConstraintQueue::kNoTicket);
}

TEST_F(ConstraintQueueTest, OneThatIsBeingCompiledCanBeCancelled) {
  Start(SlowQueue());
  auto held = std::make_shared<int>(0);
  const auto ticket = Order(kSlow, [held](const Compiled&) { FAIL(); });
  WaitUntilBegun();
  queue_->Cancel(ticket);
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_TRUE(Compile("b").ok());  // behind it
}

TEST_F(ConstraintQueueTest, WhatWaitsAtTheEndIsDropped) {
  auto held = std::make_shared<int>(0);
  Start(SlowQueue());
  for (int i = 0; i < 5; ++i) Order(kSlow, [held](const Compiled&) { FAIL(); });
  queue_.reset();
  EXPECT_EQ(held.use_count(), 1);
}

TEST_F(ConstraintQueueTest, ADeadlineIsKeptWhileItWaits) {
  Start({.places = {.max_places = 1}, .num_threads = 0});
  const absl::Time deadline = absl::Now() + absl::Milliseconds(50);
  EXPECT_EQ(Compile("a", deadline).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now(), deadline);
  EXPECT_EQ(queue_->num_waiting(), 0);
  EXPECT_EQ(Compile("a", absl::InfinitePast()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ConstraintQueueTest, ADeadlineIsKeptWhileItIsCompiled) {
  ConstraintQueueOptions options = SlowQueue();
  options.limits.max_compile_time = options.limits.warm_up_time = absl::Seconds(2);
  Start(options);
  EXPECT_EQ(Compile("[a-z ]{0,90000}", absl::Now() + absl::Milliseconds(5)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ConstraintQueueTest, EverythingEndsWithTheServer) {
  Start({.num_threads = 0});
  std::promise<Compiled> promise;
  Order("a", [&](Compiled compiled) { promise.set_value(std::move(compiled)); });
  queue_->EndAt(absl::Now() + absl::Milliseconds(50));
  EXPECT_EQ(promise.get_future().get().status().code(), absl::StatusCode::kUnavailable);
  queue_->EndAt(absl::InfiniteFuture());  // an end is not put off
  EXPECT_EQ(Compile("b").status().code(), absl::StatusCode::kUnavailable);
}

// The texts that were compiled, in order.
class TurnsTest : public ConstraintQueueTest {
 protected:
  void Order(const std::string& caller, const std::string& regex) {
    ConstraintQueueTest::Order(
        regex,
        [this, regex](const Compiled&) {
          const std::lock_guard lock(mutex_);
          done_.push_back(regex);
        },
        absl::InfiniteFuture(), caller);
  }
  std::vector<std::string> WaitForAll(size_t num_done) {
    for (;;) {
      absl::SleepFor(absl::Milliseconds(1));
      const std::lock_guard lock(mutex_);
      if (done_.size() == num_done) return done_;
    }
  }
  std::mutex mutex_;
  std::vector<std::string> done_;
};

TEST_F(TurnsTest, CallersTakeTurns) {
  Start(SlowQueue());
  Order("a", kSlow);
  WaitUntilBegun();
  for (const char* regex : {"a1", "a2", "a3"}) Order("a", regex);
  Order("c", "c1");
  Order("b", "b1");
  Order("b", "b2");
  EXPECT_THAT(WaitForAll(7), ElementsAre(kSlow, "b1", "c1", "a1", "b2", "a2", "a3"));
  queue_.reset();
}

TEST_F(TurnsTest, EqualConstraintsTakeOneThread) {
  ConstraintQueueOptions options = SlowQueue();
  options.num_threads = 2;
  Start(options);
  for (int i = 0; i < 3; ++i) Order("a", kSlow);
  Order("b", "quick");
  EXPECT_EQ(WaitForAll(4).front(), "quick");
  queue_.reset();
}

// Calls through the service.

GenerateCall Constrained(const std::string& field, const ConstraintSpec& spec) {
  GenerateCall call{.input = "hi"};
  call.constraints = {
      std::make_shared<const GivenConstraint>(GivenConstraint{.field = field, .spec = spec})};
  return call;
}
GenerateCall Matching(const std::string& regex) {
  return Constrained("guided_regex", *Regex(regex));
}

std::shared_ptr<CollectingObserver> RunCall(ServiceHarness& harness, const GenerateCall& call) {
  auto observer = std::make_shared<CollectingObserver>();
  const auto handle = harness.service.Generate(call, observer);
  EXPECT_TRUE(handle.ok()) << handle.status();
  if (handle.ok()) observer->Wait();
  return observer;
}
absl::Status Refusal(ServiceHarness& harness, const GenerateCall& call) {
  return harness.service.Generate(call, std::make_shared<CollectingObserver>()).status();
}

TEST(ConstrainedCallTest, BeyondTheMemoryOfAllIsOverload) {
  ConstraintQueueOptions options;
  options.limits.max_total_bytes = CompiledConstraint::kGrowthBytes * 3 / 2;
  ServiceHarness harness({}, {}, options);
  const GenerateCall first = Matching("ab");
  std::promise<absl::StatusOr<std::vector<PreparedCall>>> promise;
  harness.service.Complete(harness.service.Prepare({&first, 1}).value(),
                           [&](auto completed) { promise.set_value(std::move(completed)); });
  auto held = promise.get_future().get();
  ASSERT_TRUE(held.ok());
  GenerateCall second = Matching("cd");
  second.n = 3;
  const absl::Status refused = Refusal(harness, second);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetDetail(refused).code, "overloaded");
  EXPECT_EQ(harness.service.engine_stats()
                .num_rejected[static_cast<size_t>(RejectReason::kConstraintQueue)],
            3);
  held->clear();
  // The thread that has compiled it may hold it a moment longer.
  for (int i = 0; i < 1000 && absl::IsResourceExhausted(Refusal(harness, second)); ++i) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_EQ(RunCall(harness, second)->last().kind, Kind::kDone);
}

TEST(ConstrainedCallTest, EveryChoiceFollowsTheConstraint) {
  ServiceHarness harness;
  GenerateCall call = Matching("ab[xy]{3}");
  call.n = 3;
  call.num_logprobs = 1;
  const auto observer = RunCall(harness, call);
  EXPECT_EQ(observer->last().kind, Kind::kDone);
  for (int choice = 0; choice < 3; ++choice) {
    // The script says 'x' throughout; the last token is part of the answer, none follows it.
    EXPECT_EQ(observer->Text(choice), "abxxx");
    EXPECT_THAT(observer->Tokens(choice), ElementsAre('a', 'b', 'x', 'x', 'x'));
    EXPECT_THAT(observer->Finishes()[choice], ElementsAre(FinishReason::kStop));
  }
  EXPECT_EQ(observer->last().usage.completion_tokens, 15);
  EXPECT_TRUE(harness.BecomesIdle());
}

TEST(ConstrainedCallTest, TheEndTokenEndsAnAnswerThatCouldGoOnEvenIfIgnored) {
  ServiceHarness harness;
  harness.SayBytes("aa", 3);
  GenerateCall call = Matching("a+");
  call.ignore_eos = true;
  call.min_tokens = 2;
  const auto observer = RunCall(harness, call);
  EXPECT_EQ(observer->Text(), "aa");
  EXPECT_THAT(observer->Tokens(), ElementsAre('a', 'a', FakeTokenizer::kEos));
  EXPECT_THAT(observer->Finishes()[0], ElementsAre(FinishReason::kStop));
}

TEST(ConstrainedCallTest, MaxTokensCutsAndStopStringsStop) {
  ServiceHarness harness;
  GenerateCall cut = Matching("x{20}");
  cut.max_tokens = 19;
  EXPECT_THAT(RunCall(harness, cut)->Finishes()[0], ElementsAre(FinishReason::kLength));
  cut.max_tokens = 20;  // at the limit, and complete
  EXPECT_THAT(RunCall(harness, cut)->Finishes()[0], ElementsAre(FinishReason::kStop));
  GenerateCall stopped = Matching("x{9}");
  stopped.stop = {"xxx"};
  EXPECT_EQ(RunCall(harness, stopped)->Text(), "");
  stopped.include_stop_text = true;
  EXPECT_EQ(RunCall(harness, stopped)->Text(), "xxx");
}

TEST(ConstrainedCallTest, RefusalsNameTheField) {
  ServiceHarness harness;
  const auto refused = Refusal(
      harness, Constrained("guided_json", {.kind = ConstraintKind::kJsonSchema,
                                           .source = R"({"properties":{"a":{"not":{}}}})"}));
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetDetail(refused).param, "guided_json");
  EXPECT_EQ(GetDetail(refused).code, "invalid_value");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("/properties/a/not"));

  GenerationService::Dependencies without = harness.Dependencies();
  without.constraints = nullptr;
  GenerationService service(std::move(without));
  const absl::Status unavailable =
      service.Generate(Matching("a"), std::make_shared<CollectingObserver>()).status();
  EXPECT_EQ(GetDetail(unavailable).param, "guided_regex");
  EXPECT_THAT(std::string(unavailable.message()), HasSubstr("cannot be constrained"));
}

// Before the prompt is looked at, and counted.
TEST(ConstrainedCallTest, AFullQueueIsOverload) {
  ServiceHarness harness({}, {}, {.places = {.max_places = 0}, .num_threads = 0});
  GenerateCall call = Matching("a");
  call.input = "";  // would be refused too
  call.n = 3;
  const absl::Status refused = Refusal(harness, call);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetDetail(refused).code, "overloaded");
  const auto reason = static_cast<size_t>(RejectReason::kConstraintQueue);
  EXPECT_EQ(harness.service.engine_stats().num_rejected[reason], 3);
  EXPECT_EQ(harness.engine.Stats().num_preparing, 0);
}

TEST(ConstrainedCallTest, ACallWaitsInItsPlaceOfTheEnginesQueue) {
  ServiceHarness harness({}, {.admission = {.max_queued_requests = 2}}, {.num_threads = 0});
  const std::vector<GenerateCall> calls = {Matching("a"), Matching("a")};
  auto prepared = harness.service.Prepare(calls);
  ASSERT_TRUE(prepared.ok());
  const auto ticket = harness.service.Complete(*std::move(prepared), [](const auto&) { FAIL(); });
  EXPECT_EQ(harness.constraints.num_waiting(), 1);
  EXPECT_EQ(harness.engine.Stats().num_preparing, 2);
  EXPECT_TRUE(harness.service.CheckLive().ok());
  EXPECT_EQ(Refusal(harness, {.input = "hi"}).code(), absl::StatusCode::kResourceExhausted);
  harness.service.CancelCompletion(ticket);
  harness.service.CancelCompletion(ticket);
  EXPECT_EQ(harness.constraints.num_waiting(), 0);
  EXPECT_EQ(harness.engine.Stats().num_preparing, 0);
  EXPECT_EQ(harness.engine.Stats().num_admitted, 0);
  EXPECT_EQ(RunCall(harness, {.input = "hi", .max_tokens = 1, .n = 2})->Text(), "x");
}

TEST(ConstrainedCallTest, ItsTimeRunsWhileItsConstraintWaits) {
  ServiceHarness harness({}, {}, {.num_threads = 0});
  GenerateCall call = Matching("a");
  call.timeout_seconds = 0.05;
  const absl::Status late = Refusal(harness, call);
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(GetDetail(late).code, "timeout");
  EXPECT_EQ(harness.engine.Stats().num_preparing, 0);
}

TEST(ConstrainedCallTest, ADrainWaitsForItAndEndsItAtTheDeadline) {
  ServiceHarness harness({}, {}, SlowQueue());
  const std::vector<GenerateCall> calls = {Matching(kSlow)};
  std::promise<absl::Status> promise;
  auto observer = std::make_shared<CollectingObserver>();
  harness.service.Complete(harness.service.Prepare(calls).value(), [&](auto completed) {
    promise.set_value(harness.service.Start(std::move(completed->front()), observer).status());
  });
  harness.engine.Drain(absl::InfiniteFuture());
  EXPECT_TRUE(promise.get_future().get().ok());
  EXPECT_EQ(observer->last().kind, Kind::kDone);

  ServiceHarness ending({}, {}, {.num_threads = 0});
  std::promise<absl::Status> ended;
  ending.service.Complete(ending.service.Prepare(calls).value(),
                          [&](const auto& completed) { ended.set_value(completed.status()); });
  const absl::Time deadline = absl::Now() + absl::Milliseconds(50);
  ending.constraints.EndAt(deadline);
  ending.engine.Drain(deadline);
  const absl::Status status = ended.get_future().get();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(GetDetail(status).code, "unavailable");
}

TEST(ConstrainedCallTest, WhatIsKnownNeedsNoPlace) {
  ServiceHarness harness({}, {}, {.places = {.max_places = 1}});
  const absl::Status bad = Refusal(harness, Matching("("));
  RunCall(harness, Matching("a"));
  const auto place = harness.constraints.Reserve("", 1).value();
  EXPECT_EQ(Refusal(harness, Matching("b")).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RunCall(harness, Matching("a"))->Text(), "a");
  EXPECT_EQ(Refusal(harness, Matching("(")), bad);
}

// The first token that is a surprise ends one request; the engine goes on.
TEST(ConstrainedCallTest, AConstraintThatCannotBeFollowedEndsItsCall) {
  ConstraintQueueOptions options;
  options.limits.max_parallel_states = 6;
  options.limits.warm_up_time = absl::ZeroDuration();
  ServiceHarness harness({}, {}, options);
  harness.executor.set_script([](const SampleRow&) { return 'a'; });
  GenerateCall call = Matching("(?:a|b)*a(?:a|b){12}c");
  call.max_tokens = 40;
  const auto observer = RunCall(harness, call);
  EXPECT_EQ(observer->last().kind, Kind::kError);
  EXPECT_EQ(observer->last().error.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetDetail(observer->last().error).param, "guided_regex");
  EXPECT_THAT(std::string(observer->last().error.message()), HasSubstr("too ambiguous"));
  EXPECT_TRUE(harness.BecomesIdle());
  EXPECT_EQ(RunCall(harness, {.input = "hi", .max_tokens = 2})->Text(), "aa");
}

}  // namespace
}  // namespace nsa
