// The whole model on a GPU against the CPU: what the goldens do not reach. Without a GPU there are
// no tests here.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "engine/constraint/constraint_compiler.h"
#include "engine/engine_core.h"
#include "engine/load_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/golden.h"
#include "tests/engine/model_runner.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/devices.h"

namespace nsa {
namespace {

constexpr float kTolerance = 5e-4F;  // everything is f32, in two orders of addition

float LargestDifference(const Logits& a, const Logits& b) {
  EXPECT_EQ(a.size(), b.size());
  float largest = 0;
  for (size_t t = 0; t < std::min(a.size(), b.size()); ++t) {
    for (size_t i = 0; i < a[t].size(); ++i) {
      const float scale = std::max(1.0F, std::abs(b[t][i]));
      const float difference = std::abs(a[t][i] - b[t][i]) / scale;
      if (!(difference <= largest)) largest = difference;  // NaN counts
    }
  }
  return largest;
}

class GpuModelTest : public testing::TestWithParam<std::tuple<const char*, TestDevice>> {
 protected:
  GpuModelTest() : golden_(ReadGolden(std::get<0>(GetParam()))) {}

  std::unique_ptr<ModelRunner> Runner(bool on_gpu, const std::string& attention) const {
    const RunnerOptions options{.num_seqs = 3,
                                .max_seq_tokens = 512,
                                .max_chunk_tokens = 256,
                                .num_threads = 2,
                                .device = on_gpu ? gpu_ : nullptr,
                                .attention = attention,
                                .cache_dtype = DType::kF32};
    return std::make_unique<ModelRunner>(golden_.folder, options);
  }
  std::span<const int32_t> Tokens(size_t start, size_t num_tokens) const {
    return std::span<const int32_t>(golden_.tokens).subspan(start, num_tokens);
  }

  const Golden golden_;
  const std::shared_ptr<Device> gpu_ = std::get<1>(GetParam()).Open();
};

TEST_P(GpuModelTest, FullAttentionIsTheCpus) {
  const std::vector<int64_t> chunks = {100, 1, 1, 37, 1, 60};
  const Logits expected = Runner(false, "full")->Feed(0, Tokens(0, 250), chunks);
  EXPECT_LT(LargestDifference(Runner(true, "full")->Feed(0, Tokens(0, 250), chunks), expected),
            kTolerance);
}

// Decodes and chunks of several sequences in one step.
TEST_P(GpuModelTest, MixedStepsAreTheCpus) {
  for (const char* attention : {"", "full"}) {
    const auto gpu = Runner(true, attention), cpu = Runner(false, attention);
    const auto step = [&](const std::vector<ModelRunner::Chunk>& chunks) {
      const Logits actual = gpu->Step(chunks);
      EXPECT_LT(LargestDifference(actual, cpu->Step(chunks)), kTolerance) << attention;
    };
    step({{0, Tokens(0, 130)}});
    step({{0, Tokens(130, 1)}, {2, Tokens(5, 70)}});
    step({{0, Tokens(131, 1)}, {2, Tokens(75, 1)}, {1, Tokens(20, 33)}});
    step({{2, Tokens(76, 1)}, {0, Tokens(132, 90)}, {1, Tokens(53, 200)}});
    for (size_t i = 0; i < 40; ++i) {
      step({{1, Tokens(20 + i, 1)}, {0, Tokens(40 + i, 1)}, {2, Tokens(80 + i, 1)}});
    }
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GpuModelTest);
INSTANTIATE_TEST_SUITE_P(Models, GpuModelTest,
                         testing::Combine(testing::Values("nsa_paper", "nsa_shared", "llama_nsa",
                                                          "nsa_linear_before"),
                                          testing::ValuesIn(TestGpus())),
                         [](const auto& info) { return std::string(std::get<0>(info.param)); });

// The engine over the real executor.
struct EngineRun {
  std::vector<std::vector<int32_t>> tokens;  // by request
  int64_t num_graphs = 0;
  int64_t num_preemptions = 0;
};

EngineRun RunEngine(const std::string& folder, const LoadOptions& options,
                    const std::vector<Request>& requests) {
  absl::StatusOr<LoadedModel> loaded = LoadModel(folder, options, nullptr);
  NSA_CHECK(loaded.ok()) << loaded.status();
  EngineCore core(loaded->executor.get(), 4096, [] { return absl::Now(); });
  const auto sink = std::make_shared<CollectingSink>();
  for (const Request& request : requests) core.Submit(request, sink, absl::Now());
  while (!core.idle()) {
    const StepOutcome outcome = core.Step();
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    for (const Delivery& delivery : outcome.deliveries) delivery.sink->OnToken(delivery.event);
  }
  EngineRun run{.num_graphs = loaded->executor->num_graphs(),
                .num_preemptions = core.stats().num_preemptions};
  EXPECT_EQ(core.stats().num_free_pages, core.stats().num_pages);
  for (const Request& request : requests) run.tokens.push_back(sink->TokensOf(request.id));
  return run;
}

class GpuEngineTest : public testing::TestWithParam<TestDevice> {
 protected:
  LoadOptions Options() const {
    return {.executor = {.kv_cache_bytes = 8 << 20,
                         .max_num_seqs = 6,
                         .max_chunk_tokens = 64,
                         .max_batched_tokens = 100},
            .device = gpu_};
  }

  // Prompts from a golden's tokens, of many lengths; some sample, some stop early.
  std::vector<Request> Requests(const std::string& name) const {
    const Golden golden = ReadGolden(name);
    std::vector<Request> requests;
    for (int i = 0; i < 20; ++i) {
      Request request{.id = static_cast<RequestId>(i), .max_tokens = 5 + 7 * (i % 6)};
      request.sampling = {.temperature = i % 3 == 0 ? 0.7F : 0.0F,
                          .seed = static_cast<uint64_t>(i)};
      request.num_top_logprobs = i % 5 == 0 ? 3 : -1;
      const auto start = golden.tokens.begin() + 3 * i;
      request.prompt.assign(start, start + 1 + 11 * i % 150);
      if (i % 4 == 1) request.stop_token_ids = {golden.tokens[i], golden.tokens[i + 1]};
      requests.push_back(std::move(request));
    }
    return requests;
  }

  const std::shared_ptr<Device> gpu_ = GetParam().Open();
};

TEST_P(GpuEngineTest, TokensAreTheCpus) {
  for (const char* name : {"nsa_paper", "llama"}) {
    LoadOptions cpu = Options();
    cpu.device = nullptr;
    const std::string folder = ReadGolden(name).folder;
    const EngineRun expected = RunEngine(folder, cpu, Requests(name));
    const EngineRun actual = RunEngine(folder, Options(), Requests(name));
    EXPECT_EQ(actual.tokens, expected.tokens) << name;
    EXPECT_GT(actual.num_graphs, 0);
  }
}

// Penalties and constraints, whose steps are launched in two parts, beside requests without.
TEST_P(GpuEngineTest, EditedLogitsAreTheCpus) {
  std::vector<std::string> texts;
  for (int token = 0; token < 64; ++token) texts.emplace_back(1, static_cast<char>('0' + token));
  ConstraintCompiler compiler(TokenTable::Create(texts, std::vector<int32_t>{63}).value(), {},
                              1 << 20);
  const auto compile = [&](const char* regex) {
    return compiler.Compile({.kind = ConstraintKind::kRegex, .source = regex}).value();
  };
  const auto digits = compile("[0-9]{30}"), short_words = compile("(?:[A-F]{1,4};)*");
  for (const char* name : {"nsa_paper", "llama"}) {
    std::vector<Request> requests = Requests(name);
    for (size_t i = 0; i < requests.size(); ++i) {
      if (i % 3 == 0) requests[i].rules.frequency_penalty = 0.75F;
      if (i % 4 == 0) requests[i].rules.repetition_penalty = 1.25F;
      if (i % 5 == 0) requests[i].rules.min_tokens = 4;
      if (i % 4 == 2) requests[i].constraint = i % 8 == 2 ? digits : short_words;
    }
    LoadOptions cpu = Options(), eager = Options();
    cpu.device = nullptr;
    eager.executor.record_graphs = false;
    const std::string folder = ReadGolden(name).folder;
    const EngineRun expected = RunEngine(folder, cpu, requests);
    const EngineRun actual = RunEngine(folder, Options(), requests);
    EXPECT_EQ(actual.tokens, expected.tokens) << name;
    EXPECT_GT(actual.num_graphs, 0);
    EXPECT_EQ(RunEngine(folder, eager, requests).tokens, expected.tokens) << name;
    for (const int32_t token : expected.tokens[2]) EXPECT_LT(token, 10);
  }
}

TEST_P(GpuEngineTest, GraphsChangeNothing) {
  LoadOptions eager = Options();
  eager.executor.record_graphs = false;
  const std::string folder = ReadGolden("nsa_paper").folder;
  const EngineRun expected = RunEngine(folder, eager, Requests("nsa_paper"));
  EXPECT_EQ(expected.num_graphs, 0);
  EXPECT_EQ(RunEngine(folder, Options(), Requests("nsa_paper")).tokens, expected.tokens);
}

// The prompt is computed once; the other choices go on in copies of its last page.
TEST_P(GpuEngineTest, ChoicesOfOnePromptAreTheCpus) {
  for (const char* name : {"nsa_paper", "nsa_shared"}) {
    const Golden golden = ReadGolden(name);
    std::vector<Request> requests;
    for (uint64_t i = 0; i < 5; ++i) {
      Request request{.id = i, .max_tokens = 40};
      request.prompt.assign(golden.tokens.begin(), golden.tokens.begin() + 150);
      request.sampling = {.temperature = 0.7F, .seed = i};
      if (i > 0) request.same_prompt_as = 0;
      requests.push_back(std::move(request));
    }
    LoadOptions cpu = Options();
    cpu.device = nullptr;
    cpu.executor.share_prefixes = false;
    EXPECT_EQ(RunEngine(golden.folder, Options(), requests).tokens,
              RunEngine(golden.folder, cpu, requests).tokens)
        << name;
  }
}

// Five pages for six sequences that grow to two pages each.
TEST_P(GpuEngineTest, PreemptionChangesNothing) {
  const std::string folder = ReadGolden("llama").folder;
  std::vector<Request> requests = Requests("llama");
  for (Request& request : requests) {
    request.prompt.resize(std::min<size_t>(request.prompt.size(), 50));
    request.max_tokens = 60;
  }
  const CacheSpec spec = LoadModel(folder, Options(), nullptr)->executor->cache().spec();
  LoadOptions tight = Options();
  ASSERT_EQ(spec.BytesPerRecentPage(), 0);  // a dense model
  tight.executor.kv_cache_bytes = 5 * spec.BytesPerPage();
  const EngineRun run = RunEngine(folder, tight, requests);
  EXPECT_GT(run.num_preemptions, 0);
  EXPECT_EQ(run.tokens, RunEngine(folder, Options(), requests).tokens);
}

// A token far outside the vocabulary makes a kernel read where no memory is. In a process of its
// own, which has no GPU afterwards.
TEST_P(GpuEngineTest, AnErrorOfTheGpuIsReportedAndTheDeviceIsLost) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto lose = [this] {
    absl::StatusOr<LoadedModel> loaded =
        LoadModel(ReadGolden("nsa_paper").folder, Options(), nullptr);
    ModelExecutor& executor = *loaded->executor;
    Batch batch{
        .num_seqs = 1, .max_pages = 1, .recent_columns = executor.limits().recent_columns()};
    batch.num_decode_tokens = 1;
    batch.token_ids = {std::numeric_limits<int32_t>::max()};
    batch.token_sequence = batch.token_position = batch.page_table = {0};
    batch.recent_table.assign(batch.recent_columns, 0);
    batch.logit_tokens = {0};
    batch.rows = {{.params = {.temperature = 0}, .position = 1}};
    executor.Launch(batch);
    executor.Launch(batch);  // before anybody knows
    const absl::Status first = executor.Collect().status(), second = executor.Collect().status();
    batch.token_ids = {1};
    const absl::Status third = executor.Execute(batch).status();
    std::fprintf(stderr, "%s; %s; %s; lost %d\n", first.ToString().c_str(),
                 second.ToString().c_str(), third.ToString().c_str(), executor.is_lost() ? 1 : 0);
    std::_Exit(first.ok() || second.ok() || third.ok() ? 2 : 0);
  };
  EXPECT_EXIT(lose(), testing::ExitedWithCode(0),
              "INTERNAL: cuda:0.*cudaErrorIllegalAddress.*INTERNAL.*INTERNAL.*lost 1");
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GpuEngineTest);
INSTANTIATE_TEST_SUITE_P(Gpus, GpuEngineTest, testing::ValuesIn(TestGpus()),
                         [](const auto& info) { return info.param.name(); });

}  // namespace
}  // namespace nsa
