// Sequences that begin in pages of others compute the same bits as alone, with real models.

#include "engine/engine_core.h"
#include "engine/load_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/golden.h"

namespace nsa {
namespace {

struct Recorder : TokenSink {
  void OnToken(const TokenEvent& event) override { events.push_back(event); }
  std::vector<TokenEvent> events;
};

// Tokens, and the bits of their logprobs.
using Output = std::vector<std::pair<int32_t, std::vector<float>>>;

Output OutputOf(const Recorder& recorder) {
  Output output;
  for (const TokenEvent& event : recorder.events) {
    if (!event.has_token) continue;
    std::vector<float>& values = output.emplace_back(event.token, std::vector<float>()).second;
    values.push_back(event.logprob);
    for (const TopLogprob& top : event.top_logprobs) values.push_back(top.logprob);
  }
  return output;
}

class PrefixSharingTest : public testing::TestWithParam<const char*> {
 protected:
  PrefixSharingTest() : golden_(ReadGolden(GetParam())) {}

  std::unique_ptr<ModelExecutor> Load(bool share_prefixes) const {
    absl::StatusOr<LoadedModel> loaded = LoadModel(golden_.folder,
                                                   {.executor = {.kv_cache_bytes = 16 << 20,
                                                                 .max_num_seqs = 3,
                                                                 .max_chunk_tokens = 50,
                                                                 .max_batched_tokens = 100,
                                                                 .share_prefixes = share_prefixes},
                                                    .device = OpenHostDevice(1, "")},
                                                   nullptr);
    NSA_CHECK(loaded.ok()) << loaded.status();
    return std::move(loaded->executor);
  }

  // The first num_shared tokens of the golden, then its last num_own ones.
  std::vector<int32_t> Prompt(int64_t num_shared, int64_t num_own) const {
    std::vector<int32_t> prompt(golden_.tokens.begin(), golden_.tokens.begin() + num_shared);
    prompt.insert(prompt.end(), golden_.tokens.end() - num_own, golden_.tokens.end());
    return prompt;
  }

  // Runs one request to its end; *num_shared is what the cache had of it.
  static Output Run(const std::vector<int32_t>& prompt, EngineCore& core, int64_t* num_shared) {
    const auto sink = std::make_shared<Recorder>();
    Request request{.id = 1, .prompt = prompt, .max_tokens = 20};
    request.sampling.temperature = 0;
    request.num_top_logprobs = 5;
    core.Submit(request, sink, absl::UnixEpoch());
    while (!core.idle()) {
      for (const Delivery& delivery : core.Step().deliveries) {
        delivery.sink->OnToken(delivery.event);
      }
    }
    *num_shared = sink->events.back().num_prompt_tokens_shared;
    return OutputOf(*sink);
  }

  const Golden golden_;
};

TEST_P(PrefixSharingTest, AHitComputesTheBitsOfAMiss) {
  const auto shared = Load(true), alone = Load(false);
  const auto clock = [] { return absl::UnixEpoch(); };
  EngineCore sharing(shared.get(), 1000, clock), computing(alone.get(), 1000, clock);
  int64_t num_shared = 0, none = 0;
  // Nothing is there; all but the last token; a part; a page's border; nothing again.
  std::vector<std::vector<int32_t>> prompts = {Prompt(200, 0), Prompt(200, 0), Prompt(150, 40),
                                               Prompt(129, 1), Prompt(128, 0), Prompt(63, 100)};
  const std::vector<int64_t> num_common = {0, 199, 150, 129, 127, 63};  // before the last token
  const int64_t page_tokens = shared->limits().page_tokens;
  const auto num_found = [&](size_t i) {  // inside a page: only the end of the same prompt
    return prompts[i] == prompts[0] ? num_common[i] : num_common[i] / page_tokens * page_tokens;
  };
  int64_t num_shared_in_all = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(Run(prompts[i], sharing, &num_shared), Run(prompts[i], computing, &none)) << i;
    EXPECT_EQ(num_shared, num_found(i)) << i;
    num_shared_in_all += num_shared;
    EXPECT_EQ(none, 0);
  }
  EXPECT_EQ(sharing.stats().num_prefix_shared_tokens, num_shared_in_all);
  EXPECT_EQ(sharing.stats().num_prefix_queried_tokens, 200 + 200 + 190 + 130 + 128 + 163);
  EXPECT_EQ(sharing.stats().num_free_pages, sharing.stats().num_pages);
  EXPECT_GT(sharing.stats().num_kept_pages, 0);
  EXPECT_EQ(computing.stats().num_kept_pages, 0);
}

// The next turn of a conversation: prompt, answer and more.
TEST_P(PrefixSharingTest, AnAnswerIsSharedToo) {
  const auto shared = Load(true), alone = Load(false);
  const auto clock = [] { return absl::UnixEpoch(); };
  EngineCore sharing(shared.get(), 1000, clock), computing(alone.get(), 1000, clock);
  int64_t num_shared = 0;
  std::vector<int32_t> conversation = Prompt(120, 0);
  for (const auto& [token, logprobs] : Run(conversation, sharing, &num_shared)) {
    conversation.push_back(token);
  }
  for (int64_t i = 0; i < 5; ++i) conversation.push_back(golden_.tokens[i]);
  int64_t none = 0;
  EXPECT_EQ(Run(conversation, sharing, &num_shared), Run(conversation, computing, &none));
  EXPECT_EQ(num_shared, 128);  // of 139 that were computed
}

// Three choices of one prompt, one after another; tokens and the bits of their logprobs.
std::vector<Output> RunChoices(const std::vector<int32_t>& prompt, int64_t max_tokens,
                               EngineCore& core) {
  std::vector<std::shared_ptr<Recorder>> sinks;
  for (RequestId id = 1; id <= 3; ++id) {
    Request request{.id = id, .prompt = prompt, .max_tokens = max_tokens};
    request.sampling.seed = id;
    request.num_top_logprobs = 5;
    if (id > 1) request.same_prompt_as = 1;
    sinks.push_back(std::make_shared<Recorder>());
    core.Submit(request, sinks.back(), absl::UnixEpoch());
  }
  while (!core.idle()) {
    for (const Delivery& delivery : core.Step().deliveries) delivery.sink->OnToken(delivery.event);
  }
  std::vector<Output> outputs;
  for (const auto& sink : sinks) outputs.push_back(OutputOf(*sink));
  return outputs;
}

// Of a call with n choices one computes the prompt. The others go on in copies of its last page,
// wherever in the page it ends, and compute the last token alone.
TEST_P(PrefixSharingTest, ThePromptOfSeveralChoicesIsComputedOnce) {
  const auto alone = Load(false);
  const auto clock = [] { return absl::UnixEpoch(); };
  EngineCore computing(alone.get(), 1000, clock);
  for (const int64_t num_tokens : {2, 31, 32, 33, 63, 64, 65, 66, 127, 128, 129, 150, 193}) {
    const auto shared = Load(true);
    EngineCore sharing(shared.get(), 1000, clock);
    const std::vector<int32_t> prompt = Prompt(num_tokens, 0);
    constexpr int64_t kNumNew = 40;  // past the end of a span and of a page
    EXPECT_EQ(RunChoices(prompt, kNumNew, sharing), RunChoices(prompt, kNumNew, computing))
        << num_tokens;
    EXPECT_EQ(sharing.stats().num_prefix_shared_tokens, 2 * (num_tokens - 1));
    // All tokens but the last of each, and of the prompt's only the last one again.
    EXPECT_EQ(sharing.stats().step_tokens.sum, num_tokens + 2 + 3 * (kNumNew - 1));
  }
}

// One that has ended leaves its last page to those that come later.
TEST_P(PrefixSharingTest, ChoicesThatComeLaterFindThePromptToo) {
  const auto shared = Load(true), alone = Load(false);
  const auto clock = [] { return absl::UnixEpoch(); };
  EngineCore sharing(shared.get(), 1000, clock), computing(alone.get(), 1000, clock);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(RunChoices(Prompt(150, 0), 1, sharing), RunChoices(Prompt(150, 0), 1, computing));
  }
  EXPECT_EQ(sharing.stats().num_prefix_shared_tokens, 5 * 149);
  EXPECT_EQ(sharing.stats().step_tokens.sum, 150 + 5);
}

INSTANTIATE_TEST_SUITE_P(Models, PrefixSharingTest,
                         testing::Values("nsa_paper", "nsa_shared", "llama_nsa", "llama"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace nsa
