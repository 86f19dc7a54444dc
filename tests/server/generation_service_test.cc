#include "server/generation_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <thread>
#include <vector>

#include "server/error_detail.h"
#include "tests/support/service_harness.h"

namespace nsa {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Kind = GenerateEvent::Kind;

class GenerationServiceTest : public testing::Test {
 protected:
  using Observer = std::shared_ptr<CollectingObserver>;

  // Runs a call to its end.
  Observer Run(const GenerateCall& call) {
    auto observer = std::make_shared<CollectingObserver>();
    const auto handle = harness_.service.Generate(call, observer);
    EXPECT_TRUE(handle.ok()) << handle.status();
    if (handle.ok()) observer->Wait();
    return observer;
  }
  absl::Status Refusal(const GenerateCall& call) {
    return harness_.service.Generate(call, std::make_shared<CollectingObserver>()).status();
  }

  ServiceHarness harness_;
};

constexpr int64_t kPromptTokens = 3;  // BOS, 'h', 'i'
GenerateCall Hi() { return {.input = "hi"}; }

TEST_F(GenerationServiceTest, TextUntilEos) {
  harness_.SayBytes("hello", kPromptTokens);
  const Observer observer = Run(Hi());
  EXPECT_EQ(observer->Text(), "hello");
  EXPECT_THAT(observer->Tokens(), ElementsAre('h', 'e', 'l', 'l', 'o', FakeTokenizer::kEos));
  EXPECT_THAT(observer->Finishes()[0], ElementsAre(FinishReason::kStop));
  const Usage usage = observer->last().usage;
  EXPECT_EQ(observer->last().kind, Kind::kDone);
  EXPECT_EQ(usage.prompt_tokens, kPromptTokens);
  EXPECT_EQ(usage.completion_tokens, 6);  // EOS counts
  // The first token comes from the prompt; each further one is a decode step of 10 bytes.
  EXPECT_EQ(usage.traffic.read_bytes, 50);
  EXPECT_GT(usage.traffic.dense_bytes, usage.traffic.read_bytes);
  EXPECT_GE(usage.queue, absl::ZeroDuration());
  EXPECT_GE(usage.prefill, absl::ZeroDuration());
  EXPECT_GE(usage.decode, absl::ZeroDuration());
  EXPECT_LT(usage.decode, absl::Minutes(1));
}

TEST_F(GenerationServiceTest, DefaultLengths) {
  EXPECT_EQ(Run(Hi())->Text(), std::string(16, 'x'));
  GenerateCall chat = {.input = std::vector<ChatMessage>{{"user", "hi"}}};
  const Observer observer = Run(chat);
  const int64_t context = harness_.service.model().max_request_tokens;
  EXPECT_EQ(observer->last().usage.prompt_tokens, 3);  // "hi|"
  EXPECT_EQ(observer->last().usage.completion_tokens, context - 3);
  EXPECT_THAT(observer->Finishes()[0], ElementsAre(FinishReason::kLength));
}

TEST_F(GenerationServiceTest, InputsOfEveryKind) {
  std::vector<int32_t> expected;
  harness_.executor.set_script([](const SampleRow& row) {
    return static_cast<int32_t>('0' + row.position);  // the prompt's length, as a digit
  });
  GenerateCall call{.max_tokens = 1};
  call.input = "abc";
  EXPECT_EQ(Run(call)->Text(), "4");  // with BOS
  call.input = std::vector<int64_t>{65, 66, 67};
  EXPECT_EQ(Run(call)->Text(), "3");  // as it is
  call.input = std::vector<ChatMessage>{{"user", "a"}, {"assistant", "b"}};
  EXPECT_EQ(Run(call)->Text(), "4");  // "a|b|"
}

TEST_F(GenerationServiceTest, EosCanBeIgnored) {
  harness_.SayBytes("ab", kPromptTokens);
  GenerateCall call = Hi();
  call.ignore_eos = true;
  call.max_tokens = 5;
  const Observer observer = Run(call);
  EXPECT_EQ(observer->Text(), "ab");
  EXPECT_EQ(observer->last().usage.completion_tokens, 5);
  EXPECT_THAT(observer->Finishes()[0], ElementsAre(FinishReason::kLength));
}

TEST_F(GenerationServiceTest, StopTokenIdsEndIt) {
  harness_.SayBytes("abc", kPromptTokens);
  GenerateCall call = Hi();
  call.stop_token_ids = {'b'};
  EXPECT_EQ(Run(call)->Text(), "a");
  call.include_stop_text = true;
  EXPECT_EQ(Run(call)->Text(), "ab");
}

TEST_F(GenerationServiceTest, AStopStringEndsTheRequestInTheEngineToo) {
  harness_.SayBytes("one STOP two three four five", kPromptTokens);
  GenerateCall call = Hi();
  call.max_tokens = 200;
  call.stop = {"STOP"};
  const Observer observer = Run(call);
  EXPECT_EQ(observer->Text(), "one ");
  EXPECT_THAT(observer->Finishes()[0], ElementsAre(FinishReason::kStop));
  EXPECT_EQ(observer->last().usage.completion_tokens, 8);
  EXPECT_TRUE(harness_.BecomesIdle());
  const EngineStats stats = harness_.engine.Stats();
  EXPECT_EQ(stats.num_generated_tokens, 8);
  EXPECT_EQ(stats.num_finished[static_cast<int>(FinishReason::kStop)], 1);
  EXPECT_EQ(stats.num_finished[static_cast<int>(FinishReason::kCancelled)], 0);
  for (const GenerateEvent& event : observer->events()) {
    EXPECT_THAT(event.text, testing::Not(HasSubstr("S")));
  }
}

TEST_F(GenerationServiceTest, ChoicesGoTheirOwnWays) {
  // Choice i says its seed as a digit, i + 1 times.
  harness_.executor.set_script([](const SampleRow& row) {
    const auto seed = static_cast<int64_t>(row.params.seed);
    const bool is_over = row.position - kPromptTokens > seed - 5;
    return is_over ? FakeTokenizer::kEos : static_cast<int32_t>('0' + seed);
  });
  GenerateCall call = Hi();
  call.n = 4;
  call.seed = 5;
  call.stop = {"77"};
  const Observer observer = Run(call);
  EXPECT_EQ(observer->Text(0), "5");
  EXPECT_EQ(observer->Text(1), "66");
  EXPECT_EQ(observer->Text(2), "");  // the stop string
  EXPECT_EQ(observer->Text(3), "8888");
  EXPECT_EQ(observer->Finishes().size(), 4u);
  for (const auto& [choice, finishes] : observer->Finishes()) EXPECT_EQ(finishes.size(), 1u);
  EXPECT_EQ(observer->last().kind, Kind::kDone);
  EXPECT_EQ(observer->last().usage.completion_tokens, 2 + 3 + 2 + 5);
  EXPECT_EQ(observer->last().usage.prompt_tokens, kPromptTokens);
}

TEST_F(GenerationServiceTest, SeedsAreRandomUnlessGiven) {
  std::mutex mutex;
  std::set<uint64_t> seeds;
  harness_.executor.set_script([&](const SampleRow& row) {
    const std::lock_guard lock(mutex);
    seeds.insert(row.params.seed);
    return FakeTokenizer::kEos;
  });
  for (int i = 0; i < 10; ++i) Run(Hi());
  EXPECT_EQ(seeds.size(), 10u);
  seeds.clear();
  GenerateCall call = Hi();
  call.seed = std::numeric_limits<uint64_t>::max();
  call.n = 2;
  Run(call);
  EXPECT_EQ(seeds, (std::set<uint64_t>{std::numeric_limits<uint64_t>::max(), 0}));
}

TEST_F(GenerationServiceTest, LogprobsStayInStepWithTheText) {
  harness_.SayBytes("a\xC3\xA9<en<end>", kPromptTokens);
  GenerateCall call = Hi();
  call.num_logprobs = 2;
  call.stop = {"<end>"};
  const Observer observer = Run(call);
  std::string text, bytes;
  for (const GenerateEvent& event : observer->events()) {
    EXPECT_EQ(event.tokens.size(), event.logprobs.size());
    text += event.text;
    for (const TokenLogprob& logprob : event.logprobs) {
      bytes += logprob.bytes;
      EXPECT_EQ(logprob.top.size(), 2u);
    }
    EXPECT_EQ(text, bytes);
  }
  EXPECT_EQ(text, "a\xC3\xA9<en");
  const auto first = observer->events()[0];
  EXPECT_EQ(first.logprobs[0].logprob, -static_cast<double>(kPromptTokens) / 8);
}

TEST_F(GenerationServiceTest, WithoutBeingAskedThereAreNoLogprobs) {
  for (const GenerateEvent& event : Run(Hi())->events()) EXPECT_TRUE(event.logprobs.empty());
  GenerateCall call = Hi();
  call.num_logprobs = 0;
  const Observer observer = Run(call);
  EXPECT_EQ(observer->events()[0].logprobs.size(), 1u);
  EXPECT_TRUE(observer->events()[0].logprobs[0].top.empty());
}

TEST_F(GenerationServiceTest, ALongPrefillReportsItsProgress) {
  GenerateCall call{.input = std::string(39, 'p'), .max_tokens = 2};
  const Observer observer = Run(call);
  std::vector<int64_t> done;
  for (const GenerateEvent& event : observer->events()) {
    if (event.kind != Kind::kProgress) continue;
    EXPECT_EQ(event.prompt_tokens_total, 40);
    done.push_back(event.prompt_tokens_done);
  }
  ASSERT_FALSE(done.empty());  // 40 tokens in chunks of 8
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_LE(done.back(), 40);
}

TEST_F(GenerationServiceTest, CancelEndsTheCallAndFreesItsPages) {
  harness_.executor.set_step_time(std::chrono::milliseconds(1));
  GenerateCall call = Hi();
  call.max_tokens = 900;
  call.n = 3;
  auto observer = std::make_shared<CollectingObserver>();
  const auto handle = harness_.service.Generate(call, observer);
  ASSERT_TRUE(handle.ok());
  EXPECT_EQ((*handle)->num_prompt_tokens(), kPromptTokens);
  observer->WaitForEvents(5);
  (*handle)->Cancel();
  (*handle)->Cancel();
  observer->Wait();
  EXPECT_EQ(observer->last().kind, Kind::kError);
  EXPECT_EQ(observer->last().error.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(harness_.BecomesIdle());
  const size_t num_events = observer->events().size();
  absl::SleepFor(absl::Milliseconds(20));
  EXPECT_EQ(observer->events().size(), num_events);
}

TEST_F(GenerationServiceTest, CancelAfterTheEndDoesNothing) {
  auto observer = std::make_shared<CollectingObserver>();
  const auto handle = harness_.service.Generate(Hi(), observer);
  observer->Wait();
  const size_t num_events = observer->events().size();
  (*handle)->Cancel();
  Run(Hi());
  EXPECT_EQ(observer->events().size(), num_events);
}

TEST_F(GenerationServiceTest, TheServiceLetsGoOfTheObserver) {
  auto observer = std::make_shared<CollectingObserver>();
  const auto handle = harness_.service.Generate(Hi(), observer);
  observer->Wait();
  EXPECT_TRUE(harness_.BecomesIdle());
  Run(Hi());  // the engine's step that ended the first call is over now
  EXPECT_EQ(observer.use_count(), 1);
}

TEST_F(GenerationServiceTest, AnEngineFaultEndsEveryChoiceWithOneError) {
  harness_.executor.set_error(absl::FailedPreconditionError("the device is gone"));
  GenerateCall call = Hi();
  call.n = 3;
  const Observer observer = Run(call);
  EXPECT_EQ(observer->last().error.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(GetDetail(observer->last().error).code, "internal_error");
  int num_errors = 0;
  for (const GenerateEvent& event : observer->events()) num_errors += event.kind == Kind::kError;
  EXPECT_EQ(num_errors, 1);
  EXPECT_TRUE(harness_.BecomesIdle());
  harness_.executor.set_error(absl::OkStatus());
  EXPECT_EQ(Run(Hi())->last().kind, Kind::kDone);
}

TEST_F(GenerationServiceTest, TimeoutEndsTheCall) {
  harness_.executor.set_step_time(std::chrono::milliseconds(5));
  GenerateCall call = Hi();
  call.max_tokens = 900;
  call.timeout_seconds = 0.05;
  const Observer observer = Run(call);
  EXPECT_EQ(observer->last().error.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(GetDetail(observer->last().error).code, "timeout");
  EXPECT_TRUE(harness_.BecomesIdle());
}

TEST_F(GenerationServiceTest, DrainingRefusesNewCallsAndEndsOldOnes) {
  EXPECT_TRUE(harness_.service.CheckReady().ok());
  harness_.executor.set_step_time(std::chrono::milliseconds(1));
  GenerateCall call = Hi();
  call.max_tokens = 900;
  auto observer = std::make_shared<CollectingObserver>();
  ASSERT_TRUE(harness_.service.Generate(call, observer).ok());
  observer->WaitForEvents(1);
  harness_.engine.Drain(absl::Now());
  observer->Wait();
  EXPECT_EQ(observer->last().error.code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(harness_.service.CheckReady().ok());
  const absl::Status refusal = Refusal(Hi());
  EXPECT_EQ(refusal.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(GetDetail(refusal).code, "unavailable");
}

TEST(GenerationServiceQueueTest, AFullQueueIsOverloaded) {
  ServiceHarness harness({}, {.admission = {.max_queued_requests = 2}});
  harness.executor.set_paused(true);
  GenerateCall call{.input = "hi", .n = 2};
  const auto observer = std::make_shared<CollectingObserver>();
  ASSERT_TRUE(harness.service.Generate(call, observer).ok());
  call.input = std::string(2000, 'x');  // over the context, which only its tokens would tell
  const absl::Status status =
      harness.service.Generate(call, std::make_shared<CollectingObserver>()).status();
  harness.executor.set_paused(false);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetDetail(status).code, "overloaded");
  EXPECT_EQ(harness.engine.Stats().num_rejected[0], 2);
  observer->Wait();
}

TEST_F(GenerationServiceTest, RefusalsNameTheField) {
  const auto expect = [&](const GenerateCall& call, absl::StatusCode code, const std::string& param,
                          const std::string& detail) {
    const absl::Status status = Refusal(call);
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(GetDetail(status).param, param) << status;
    EXPECT_EQ(GetDetail(status).code, detail) << status;
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  expect({.input = ""}, invalid, "prompt", "invalid_value");
  expect({.input = std::vector<int64_t>{}}, invalid, "prompt", "invalid_value");
  expect({.input = std::vector<ChatMessage>{}}, invalid, "messages", "invalid_value");
  expect({.input = "\xFF"}, invalid, "prompt", "invalid_value");
  expect({.input = std::vector<int64_t>{1, 258}}, invalid, "prompt", "invalid_value");
  expect({.input = std::vector<int64_t>{-1}}, invalid, "prompt", "invalid_value");
  expect({.input = std::vector<ChatMessage>{{"user", "a"}, {"system", "b"}}}, invalid, "messages",
         "invalid_value");
  expect({.model = "other", .input = "x"}, absl::StatusCode::kNotFound, "model", "model_not_found");
  expect({.input = std::string(2000, 'x')}, invalid, "prompt", "context_length_exceeded");
  expect({.input = "x", .temperature = 3}, invalid, "temperature", "invalid_value");
  EXPECT_TRUE(harness_.BecomesIdle());
}

TEST_F(GenerationServiceTest, TheContextIsUsedToItsLastToken) {
  const int64_t context = harness_.service.model().max_request_tokens;
  GenerateCall call{.input = std::vector<int64_t>(context - 5, 'p'), .max_tokens = 5};
  EXPECT_EQ(Run(call)->last().usage.completion_tokens, 5);
  call.max_tokens = 6;
  const absl::Status over = Refusal(call);
  EXPECT_THAT(std::string(over.message()), HasSubstr(std::to_string(context)));
  EXPECT_THAT(std::string(over.message()), HasSubstr(std::to_string(context - 5)));
}

TEST_F(GenerationServiceTest, ModelByNameOrByDefault) {
  GenerateCall call = Hi();
  call.model = "tiny";
  EXPECT_EQ(Run(call)->last().kind, Kind::kDone);
  call.model = std::string(10000, 'm') + "\xFF";
  EXPECT_LT(Refusal(call).message().size(), 200u);
}

TEST_F(GenerationServiceTest, TokenizeAndBack) {
  const GenerationService& service = harness_.service;
  EXPECT_THAT(*service.Tokenize("", "hi", /*add_special_tokens=*/true),
              ElementsAre(FakeTokenizer::kBos, 'h', 'i'));
  EXPECT_THAT(*service.Tokenize("tiny", "hi", /*add_special_tokens=*/false), ElementsAre('h', 'i'));
  EXPECT_THAT(*service.TokenizeChat("", {{"user", "a"}}), ElementsAre('a', '|'));
  EXPECT_EQ(*service.Detokenize("", {FakeTokenizer::kBos, 'h', 'i'}), "hi");
  EXPECT_EQ(service.Tokenize("other", "hi", true).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(GetDetail(service.Tokenize("", "\xFF", true).status()).param, "prompt");
  EXPECT_EQ(GetDetail(service.Detokenize("", {258}).status()).param, "tokens");
  EXPECT_EQ(GetDetail(service.TokenizeChat("", {}).status()).param, "messages");
}

TEST_F(GenerationServiceTest, WithoutATemplateChatIsRefused) {
  GenerationService::Dependencies dependencies = harness_.Dependencies();
  dependencies.chat_template = nullptr;
  GenerationService service(dependencies);
  const GenerateCall call{.input = std::vector<ChatMessage>{{"user", "hi"}}};
  const absl::Status status =
      service.Generate(call, std::make_shared<CollectingObserver>()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("chat template"));
}

TEST_F(GenerationServiceTest, ManyThreadsAtOnce) {
  harness_.SayBytes("hello", kPromptTokens);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 20; ++round) {
        auto observer = std::make_shared<CollectingObserver>();
        GenerateCall call = Hi();
        call.n = 1 + i % 3;
        auto handle = harness_.service.Generate(call, observer);
        ASSERT_TRUE(handle.ok()) << handle.status();
        if (round % 4 == 3) (*handle)->Cancel();
        observer->Wait();
        if (observer->last().kind == Kind::kDone) {
          EXPECT_EQ(observer->Text(), "hello");
        } else {
          EXPECT_EQ(round % 4, 3);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(harness_.BecomesIdle());
}

}  // namespace
}  // namespace nsa
