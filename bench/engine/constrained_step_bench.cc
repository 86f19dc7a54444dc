// What constraints cost a step of the engine:
//   constrained_step_bench MODEL_FOLDER [THREADS | gpu] [TOKENIZER_FOLDER]
// Rounds of unconstrained requests and of constrained ones take turns, 1 and 8 at a time, each of
// the same number of tokens. `cold` compiles the constraint anew for each round; `warm` shares one.
// One line per case: medians over the rounds of the mean step, without the steps of the prompts.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "base/check.h"
#include "engine/constraint/constraint_compiler.h"
#include "engine/engine_core.h"
#include "engine/load_model.h"
#include "engine/text/sentencepiece_tokenizer.h"

namespace nsa::bench {
namespace {

constexpr int64_t kPromptTokens = 64, kAnswerTokens = 192;
constexpr int kNumRounds = 31;

struct Case {
  const char* name;
  ConstraintSpec spec;
};

std::vector<Case> Cases() {
  const auto schema = [](std::string source) {
    return ConstraintSpec{.kind = ConstraintKind::kJsonSchema, .source = std::move(source)};
  };
  // None of them can be complete before the last token.
  return {{"regex .*", {.kind = ConstraintKind::kRegex, .source = ".*"}},
          {"[a-z ]{1000,3000}", {.kind = ConstraintKind::kRegex, .source = "[a-z ]{1000,3000}"}},
          {"200 free JSON values", schema(R"({"type":"array","minItems":200})")},
          {"200 persons",
           schema(R"({"type":"array","minItems":200,"items":{"type":"object","properties":{
             "name":{"type":"string"},"age":{"type":"integer"},"kind":{"enum":["a","b"]}},
             "required":["name","age","kind"],"additionalProperties":false}})")}};
}

class NoSink : public TokenSink {
 public:
  void OnToken(const TokenEvent& event) override { NSA_CHECK(event.error.ok()) << event.error; }
};

class Bench {
 public:
  Bench(ModelExecutor* executor, std::shared_ptr<const TokenTable> tokens)
      : executor_(executor), tokens_(std::move(tokens)) {}

  void Run(const Case& test, int64_t num_seqs) {
    const auto warm = Compile(test.spec);
    Round(warm, num_seqs, 0);
    std::vector<double> none_us, cold_us, warm_us;
    for (int round = 1; round <= kNumRounds; ++round) {
      none_us.push_back(Round(nullptr, num_seqs, round));
      warm_us.push_back(Round(warm, num_seqs, round));
      cold_us.push_back(Round(Compile(test.spec), num_seqs, round));
    }
    const double none = Median(none_us), cold = Median(cold_us), warmed = Median(warm_us);
    std::printf("%-22s %2ld | %8.1f | %8.1f %+6.1f%% | %8.1f %+6.1f%%\n", test.name, num_seqs, none,
                cold, 100 * (cold / none - 1), warmed, 100 * (warmed / none - 1));
    std::fflush(stdout);
  }

 private:
  static double Median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
    return values[values.size() / 2];
  }

  std::shared_ptr<const CompiledConstraint> Compile(const ConstraintSpec& spec) const {
    return ConstraintCompiler(tokens_, {}, 0).Compile(spec).value();
  }

  // Microseconds per decode step. min_tokens keeps every answer at kAnswerTokens.
  double Round(const std::shared_ptr<const CompiledConstraint>& constraint, int64_t num_seqs,
               int round) {
    EngineCore core(executor_, kPromptTokens + kAnswerTokens, [] { return absl::Now(); });
    for (int64_t seq = 0; seq < num_seqs; ++seq) {
      Request request{.id = static_cast<RequestId>(seq), .max_tokens = kAnswerTokens};
      for (int64_t i = 0; i < kPromptTokens; ++i) {
        request.prompt.push_back(static_cast<int32_t>(300 + 7 * i + 31 * seq));
      }
      request.sampling.seed = static_cast<uint64_t>(100 * round + seq);
      if (constraint != nullptr) {
        request.constraint = constraint;
        request.rules.min_tokens = kAnswerTokens;
      }
      core.Submit(std::move(request), std::make_shared<NoSink>(), absl::Now());
    }
    while (core.stats().num_generated_tokens < num_seqs) Step(core);
    const int64_t num_before = core.stats().num_steps;
    const absl::Time start = absl::Now();
    while (!core.idle()) Step(core);
    const absl::Duration elapsed = absl::Now() - start;
    NSA_CHECK_EQ(core.stats().num_generated_tokens, num_seqs * kAnswerTokens);
    return absl::ToDoubleMicroseconds(elapsed) /
           static_cast<double>(core.stats().num_steps - num_before);
  }

  static void Step(EngineCore& core) {
    for (const Delivery& delivery : core.Step().deliveries) delivery.sink->OnToken(delivery.event);
  }

  ModelExecutor* const executor_;
  const std::shared_ptr<const TokenTable> tokens_;
};

// The GPU if num_threads is 0.
void Run(const std::string& folder, const std::string& tokenizer_folder, int num_threads) {
  LoadOptions options{.executor = {.kv_cache_bytes = int64_t{1} << 30, .max_num_seqs = 8}};
  if (num_threads == 0) {
    absl::StatusOr<std::unique_ptr<Device>> device = OpenCudaDevice(0);
    NSA_CHECK(device.ok()) << device.status();
    options.device = std::move(*device);
  } else {
    options.device = OpenHostDevice(num_threads, "");
  }
  const absl::StatusOr<LoadedModel> model = LoadModel(folder, options, nullptr);
  NSA_CHECK(model.ok()) << model.status();
  const auto tokenizer =
      LoadSentencePieceTokenizer(tokenizer_folder + "/tokenizer.model", /*add_bos=*/true);
  NSA_CHECK(tokenizer.ok()) << tokenizer.status();
  const std::vector<int32_t> eos_tokens = {(*tokenizer)->eos_token()};
  Bench bench(model->executor.get(), TokenTable::Create(**tokenizer, eos_tokens).value());
  std::printf("%d threads (0: GPU), %d tokens; us per step\n%-22s %2s | %8s | %8s %7s | %8s %7s\n",
              num_threads, (*tokenizer)->vocab_size(), "constraint", "n", "none", "cold", "",
              "warm", "");
  for (const int64_t num_seqs : {1, 8}) {
    for (const Case& test : Cases()) bench.Run(test, num_seqs);
  }
}

}  // namespace
}  // namespace nsa::bench

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr,
                 "usage: constrained_step_bench MODEL_FOLDER [THREADS | gpu] [TOKENIZER_FOLDER]\n");
    return 1;
  }
  const std::string device = argc > 2 ? argv[2] : "2";
  nsa::bench::Run(argv[1], argc > 3 ? argv[3] : argv[1],
                  device == "gpu" ? 0 : std::max(1, std::atoi(device.c_str())));
  return 0;
}
