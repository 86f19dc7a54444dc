// Rows whose logits are edited, on their way through the engine's core: a step's forward pass is
// launched ahead, what is edited by the tokens of the step before follows.

#include <memory>
#include <random>
#include <string>

#include "engine/engine_core.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/byte_constraint.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/fake_executor.h"

namespace nsa {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr ExecutorLimits kLimits{.page_tokens = 4,
                                 .num_pages = 40,
                                 .max_num_seqs = 4,
                                 .max_chunk_tokens = 8,
                                 .max_batched_tokens = 16,
                                 .vocab_size = 300};

// Says in which order it was called: "L" launch, "s" sampling apart, "c" collect.
class OrderedExecutor : public FakeExecutor {
 public:
  using FakeExecutor::FakeExecutor;
  void Launch(const Batch& batch) override {
    calls += 'L';
    FakeExecutor::Launch(batch);
  }
  void LaunchSampling(const RowEdits& row_edits) override {
    calls += 's';
    edits.push_back(row_edits);
    FakeExecutor::LaunchSampling(row_edits);
  }
  absl::StatusOr<std::vector<SampledToken>> Collect() override {
    calls += 'c';
    return FakeExecutor::Collect();
  }

  std::string calls;
  std::vector<RowEdits> edits;  // the masks are not to be read
};

// The clock stands still.
class World {
 public:
  explicit World(int max_steps_ahead, const ExecutorLimits& limits = kLimits)
      : executor(limits, max_steps_ahead), core(&executor, 64, [this] { return now; }) {}

  void Submit(const Request& request) { core.Submit(request, sink, now); }
  StepOutcome Step() {
    executor.calls += executor.calls.empty() ? "" : " ";
    StepOutcome outcome = core.Step();
    for (const Delivery& delivery : outcome.deliveries) delivery.sink->OnToken(delivery.event);
    return outcome;
  }
  void StepUntilIdle() {
    for (int i = 0; i < 1000 && !core.idle(); ++i) Step();
    EXPECT_TRUE(core.idle());
    EXPECT_EQ(executor.violation(), "");
    EXPECT_EQ(executor.num_in_flight(), 0);
    EXPECT_EQ(core.stats().num_free_pages, core.stats().num_pages);
  }

  absl::Time now = absl::FromUnixSeconds(1000);
  OrderedExecutor executor;
  EngineCore core;
  std::shared_ptr<CollectingSink> sink = std::make_shared<CollectingSink>();
};

Request MakeRequest(RequestId id, int64_t max_tokens, const std::string& regex = "") {
  Request request{.id = id, .prompt = {7, 8, static_cast<int32_t>(id)}, .max_tokens = max_tokens};
  request.sampling.seed = id;
  if (!regex.empty()) request.constraint = ByteRegex(regex);
  return request;
}

Request Penalised(RequestId id, int64_t max_tokens) {
  Request request = MakeRequest(id, max_tokens);
  request.rules.frequency_penalty = 0.5F;
  return request;
}

std::vector<int32_t> Solo(const Request& request) {
  return FakeContinuation(request, kLimits.vocab_size);
}

TEST(EngineCoreEditsTest, TheForwardPassIsLaunchedBeforeTheTokenBeforeItIsKnown) {
  for (const Request& request : {MakeRequest(1, 3, "[a-z]{9}"), Penalised(1, 3)}) {
    World ahead(1), in_step(0);
    for (World* world : {&ahead, &in_step}) {
      world->Submit(request);
      world->StepUntilIdle();
      EXPECT_EQ(world->sink->TokensOf(1), Solo(request));
    }
    // No penalty is known to be there before the first token.
    const bool is_constrained = request.constraint != nullptr;
    EXPECT_EQ(ahead.executor.calls, is_constrained ? "Ls Lcs Lcs c" : "L Lcs Lcs c");
    EXPECT_EQ(in_step.executor.calls, is_constrained ? "Lsc Lsc Lsc" : "Lc Lsc Lsc");
  }
}

TEST(EngineCoreEditsTest, AStepWithoutEditsIsLaunchedAtOnce) {
  World world(1);
  Request held = MakeRequest(1, 4);
  held.rules.min_tokens = 2;
  held.stop_token_ids = {299};
  world.Submit(held);
  world.StepUntilIdle();
  EXPECT_EQ(world.executor.calls, "Ls Lcs Lc Lc c");
  EXPECT_EQ(world.sink->TokensOf(1), Solo(held));
}

// A request of any kind.
Request RandomRequest(RequestId id, std::mt19937& random) {
  const auto uniform = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  Request request = MakeRequest(id, uniform(1, 20));
  request.prompt.resize(uniform(1, 20), 5);
  if (uniform(0, 2) == 0) request.rules.frequency_penalty = 0.5F;
  if (uniform(0, 3) == 0) request.rules.repetition_penalty = 1.5F;
  if (uniform(0, 3) == 0) request.rules.bias = {{.token = 9, .bias = 2}};
  request.rules.min_tokens = uniform(0, 5);
  request.stop_token_ids = {'c', uniform(0, 20)};
  const char* const regexes[] = {"[a-f]{2,30}", "(?:ab|cd?)*e", "[0-9]{4}"};
  if (uniform(0, 1) == 0) {
    ConstraintLimits limits;
    if (uniform(0, 1) == 0) limits.warm_up_time = absl::ZeroDuration();  // no mask is ready
    request.constraint = CompileByteConstraint(
        {.kind = ConstraintKind::kRegex, .source = regexes[uniform(0, 2)]}, limits);
  }
  request.num_top_logprobs = uniform(-1, 2);
  request.traces_blocks = uniform(0, 4) == 0;
  return request;
}

TEST(EngineCoreEditsTest, MixedBatchesAreSoloRunsWhetherAheadOrNot) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    std::mt19937 random(seed);
    ExecutorLimits limits = kLimits;
    limits.num_pages = seed % 2 == 0 ? 10 : 40;
    std::vector<Request> requests;
    for (RequestId id = 0; id < 8; ++id) requests.push_back(RandomRequest(id, random));
    World ahead(1, limits), in_step(0, limits);
    for (World* world : {&ahead, &in_step}) {
      for (const Request& request : requests) world->Submit(request);
      world->StepUntilIdle();
      for (const Request& request : requests) {
        ASSERT_EQ(world->sink->TokensOf(request.id), Solo(request)) << seed << " " << request.id;
      }
    }
    for (const Request& request : requests) {
      const auto some = ahead.sink->EventsOf(request.id), same = in_step.sink->EventsOf(request.id);
      ASSERT_EQ(some.back().finish, same.back().finish);
      ASSERT_EQ(some.back().logprob, same.back().logprob);
      ASSERT_EQ(some.back().trace == nullptr, same.back().trace == nullptr);
      if (!request.traces_blocks) continue;
      ASSERT_EQ(some.back().trace->blocks, same.back().trace->blocks);
    }
  }
}

// The row that was launched for it already is sampled without edits and dropped.
TEST(EngineCoreEditsTest, ASequenceThatHasEndedHasNoEdits) {
  World world(1);
  const Request ends = MakeRequest(1, 9, "ab"), goes_on = MakeRequest(2, 9, "[a-z]{9}");
  Request stops = Penalised(3, 9);
  stops.stop_token_ids = {Solo(stops)[1]};
  for (const Request& request : {ends, goes_on, stops}) world.Submit(request);
  world.StepUntilIdle();
  EXPECT_EQ(world.sink->TokensOf(1), (std::vector<int32_t>{'a', 'b'}));
  EXPECT_TRUE(world.sink->EventsOf(1).back().completes_answer);
  EXPECT_EQ(world.sink->TokensOf(2), Solo(goes_on));
  EXPECT_EQ(world.sink->TokensOf(3), Solo(stops));
  EXPECT_EQ(world.sink->FinishOf(3), FinishReason::kStop);
  ASSERT_GE(world.executor.edits.size(), 4U);
  EXPECT_THAT(world.executor.edits[1].edit_end, ElementsAre(0, 0, 1));
  EXPECT_THAT(world.executor.edits[1].mask_of, ElementsAre(0, 1, -1));
  // Both ended with the second token.
  EXPECT_THAT(world.executor.edits[2].edit_end, ElementsAre(0, 0, 0));
  EXPECT_THAT(world.executor.edits[2].mask_of, ElementsAre(-1, 0, -1));
  EXPECT_THAT(world.executor.edits[3].mask_of, ElementsAre(0));
}

TEST(EngineCoreEditsTest, AConstraintThatCannotBeFollowedEndsItsRequestAlone) {
  ConstraintLimits few_states{.max_parallel_states = 6};
  few_states.warm_up_time = absl::ZeroDuration();
  Request ambiguous = MakeRequest(1, 40), dead_end = MakeRequest(2, 9);
  ambiguous.constraint = CompileByteConstraint(
      {.kind = ConstraintKind::kRegex, .source = "(?:a|b)*a(?:a|b){6}c"}, few_states);
  dead_end.constraint =
      ConstraintCompiler(TokenTable::Create(std::vector<std::string>{"a", "b"}, {}).value(), {}, 1)
          .Compile({.kind = ConstraintKind::kChoice, .choices = {"ac"}})
          .value();
  const Request other = MakeRequest(3, 12, "[a-z]{20}");
  for (const int max_steps_ahead : {0, 1}) {
    World world(max_steps_ahead);
    for (const Request& request : {ambiguous, dead_end, other}) world.Submit(request);
    world.StepUntilIdle();
    for (const RequestId id : {1, 2}) {
      const TokenEvent last = world.sink->EventsOf(id).back();
      EXPECT_EQ(last.finish, FinishReason::kError);
      EXPECT_EQ(last.error.code(), absl::StatusCode::kInvalidArgument);
    }
    EXPECT_THAT(std::string(world.sink->EventsOf(1).back().error.message()),
                HasSubstr("too ambiguous"));
    EXPECT_EQ(world.sink->TokensOf(2), std::vector<int32_t>{0});
    EXPECT_EQ(world.sink->TokensOf(3), Solo(other));
  }
}

// What may happen to a request while its next step is on the way, at every step of its life.
class InterruptedTest : public testing::TestWithParam<int> {
 protected:
  enum class Event { kCancel, kDeadline, kStepError, kRowError, kLoss };

  void Check(Event event, int step) {
    World world(GetParam());
    Request constrained = MakeRequest(1, 12, "[a-z]{20}");
    const Request penalised = Penalised(2, 12);
    if (event == Event::kDeadline) constrained.deadline = world.now + absl::Seconds(1);
    world.Submit(constrained);
    world.Submit(penalised);
    for (int i = 0; i < step; ++i) world.Step();
    if (event == Event::kCancel) world.core.Cancel(1);
    if (event == Event::kDeadline) world.now += absl::Seconds(1);
    if (event == Event::kLoss) world.executor.Lose();
    bool is_next = true;
    world.executor.on_step = [&](const Batch&) {
      const bool fails = event == Event::kStepError && std::exchange(is_next, false);
      return fails ? absl::InternalError("injected") : absl::OkStatus();
    };
    world.executor.is_finite = [&](const SampleRow& row) {
      return event != Event::kRowError || row.params.seed != 1;
    };
    world.Submit(MakeRequest(3, 12, "[0-9]{20}"));
    if (event == Event::kLoss) return CheckLoss(world);
    world.StepUntilIdle();
    const std::vector<int32_t> tokens = world.sink->TokensOf(1), solo = Solo(constrained);
    ASSERT_LE(tokens.size(), solo.size());
    EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), solo.begin()));
    EXPECT_EQ(world.sink->FinishOf(1), event == Event::kCancel     ? FinishReason::kCancelled
                                       : event == Event::kDeadline ? FinishReason::kTimeout
                                                                   : FinishReason::kError);
    EXPECT_EQ(world.sink->FinishOf(2), event == Event::kStepError && step > 0
                                           ? FinishReason::kError
                                           : FinishReason::kLength);
    if (event != Event::kStepError) {
      EXPECT_EQ(world.sink->TokensOf(2), Solo(penalised));
    }
    EXPECT_EQ(world.sink->num_finished(), 3);
  }

  static void CheckLoss(World& world) {
    StepOutcome outcome;
    for (int i = 0; i < 3 && !outcome.lost; ++i) outcome = world.Step();
    EXPECT_TRUE(outcome.lost);
    EXPECT_TRUE(world.core.idle());
    EXPECT_EQ(world.executor.violation(), "");
    EXPECT_EQ(world.core.stats().num_free_pages, kLimits.num_pages);
    for (const RequestId id : {1, 2, 3}) EXPECT_EQ(world.sink->FinishOf(id), FinishReason::kError);
    EXPECT_EQ(world.sink->num_finished(), 3);
  }

  void CheckAll(Event event) {
    for (int step = 1; step < 11; ++step) {
      SCOPED_TRACE(testing::Message() << "in step " << step);
      Check(event, step);
    }
  }
};

TEST_P(InterruptedTest, ByACancel) { CheckAll(Event::kCancel); }
TEST_P(InterruptedTest, ByADeadline) { CheckAll(Event::kDeadline); }
TEST_P(InterruptedTest, ByAStepThatFails) { CheckAll(Event::kStepError); }
TEST_P(InterruptedTest, ByLogitsThatAreNotFinite) { CheckAll(Event::kRowError); }
TEST_P(InterruptedTest, ByTheLossOfTheExecutor) { CheckAll(Event::kLoss); }

INSTANTIATE_TEST_SUITE_P(StepsAhead, InterruptedTest, testing::Values(0, 1));

}  // namespace
}  // namespace nsa
