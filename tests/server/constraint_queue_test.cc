#include "server/constraint_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

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
  Compiled Compile(const std::string& regex) {
    std::promise<Compiled> promise;
    queue_->Compile(Regex(regex), [&](Compiled compiled) { promise.set_value(compiled); });
    return promise.get_future().get();
  }
  std::unique_ptr<ConstraintQueue> queue_;
};

TEST_F(ConstraintQueueTest, CompilesOnceAndKeeps) {
  Start({});
  const Compiled first = Compile("a+");
  ASSERT_TRUE(first.ok()) << first.status();
  bool is_done = false;
  const auto ticket = queue_->Compile(Regex("a+"), [&](const Compiled& second) {
    EXPECT_EQ(*second, *first);
    is_done = true;
  });
  EXPECT_EQ(ticket, ConstraintQueue::kNoTicket);
  EXPECT_TRUE(is_done);
  EXPECT_EQ(queue_->num_cached(), 1);
  EXPECT_THAT(std::string(Compile("(").status().message()), HasSubstr("without ')'"));
}

TEST_F(ConstraintQueueTest, AsManyWaitAsAreAllowed) {
  Start({.max_waiting = 2, .num_threads = 0});
  for (int i = 0; i < 2; ++i) {
    EXPECT_NE(queue_->Compile(Regex("a"), [](const Compiled&) { FAIL(); }),
              ConstraintQueue::kNoTicket);
  }
  absl::Status refusal;
  EXPECT_EQ(queue_->Compile(Regex("b"), [&](const Compiled& c) { refusal = c.status(); }),
            ConstraintQueue::kNoTicket);
  EXPECT_EQ(refusal.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refusal.message()), HasSubstr("2 constraints are waiting"));
  EXPECT_EQ(queue_->num_waiting(), 2);
}

TEST_F(ConstraintQueueTest, ACancelledTicketLeavesNothingBehind) {
  Start({.num_threads = 0});
  auto held = std::make_shared<int>(0);
  const auto ticket = queue_->Compile(Regex("a"), [held](const Compiled&) { FAIL(); });
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
  const auto ticket = queue_->Compile(Regex(kSlow), [held](const Compiled&) { FAIL(); });
  while (queue_->num_waiting() > 0) absl::SleepFor(absl::Milliseconds(1));
  queue_->Cancel(ticket);
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_TRUE(Compile("b").ok());  // behind it
}

TEST_F(ConstraintQueueTest, WhatWaitsAtTheEndIsDropped) {
  auto held = std::make_shared<int>(0);
  Start(SlowQueue());
  for (int i = 0; i < 5; ++i) queue_->Compile(Regex(kSlow), [held](const Compiled&) { FAIL(); });
  queue_.reset();
  EXPECT_EQ(held.use_count(), 1);
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

TEST(ConstrainedCallTest, AFullQueueIsOverload) {
  ServiceHarness harness({}, {}, {.max_waiting = 0, .num_threads = 0});
  const absl::Status refused = Refusal(harness, Matching("a"));
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetDetail(refused).code, "overloaded");
}

TEST(ConstrainedCallTest, ACancelledCompletionStartsNothing) {
  ServiceHarness harness({}, {}, {.num_threads = 0});
  const std::vector<GenerateCall> calls = {Matching("a"), Matching("a")};
  auto prepared = harness.service.Prepare(calls);
  ASSERT_TRUE(prepared.ok());
  const auto ticket = harness.service.Complete(*std::move(prepared), [](const auto&) { FAIL(); });
  EXPECT_EQ(harness.constraints.num_waiting(), 1);
  harness.service.CancelCompletion(ticket);
  EXPECT_EQ(harness.constraints.num_waiting(), 0);
  EXPECT_EQ(harness.engine.Stats().num_admitted, 0);
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
