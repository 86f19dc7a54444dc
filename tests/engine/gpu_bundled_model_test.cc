// The bundled bf16 model on a GPU against the CPU: greedy continuations of pieces of a real text.
// They part where two tokens are nearly tied; the logits there must agree within bf16's rounding.
// Without a GPU there are no tests here.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "engine/text/sentencepiece_tokenizer.h"
#include "gtest/gtest.h"
#include "tests/engine/model_runner.h"
#include "tests/support/devices.h"

namespace nsa {
namespace {

constexpr char kModel[] = "models/nsa-story-27m";
constexpr int kNumPrompts = 32;
constexpr int64_t kNumGenerated = 48;
constexpr int64_t kMaxPromptTokens = 900;
// The model's logits spread over about 20; a GPU's activations have bf16's 8 bits in every one of
// its layers, the CPU's are f32.
constexpr float kTolerance = 0.35F;

std::vector<int32_t> TextTokens() {
  std::ifstream file("tools/demo_chapter.txt");
  std::stringstream text;
  text << file.rdbuf();
  const auto tokenizer =
      LoadSentencePieceTokenizer(std::string(kModel) + "/tokenizer.model", /*add_bos=*/true);
  NSA_CHECK(tokenizer.ok()) << tokenizer.status();
  return *(*tokenizer)->Encode(text.str(), /*add_special_tokens=*/false);
}

struct Continuation {
  std::vector<int32_t> tokens;
  Logits logits;  // that each of the tokens is the largest of
};

Continuation Continue(std::span<const int32_t> prompt, const std::shared_ptr<Device>& device) {
  ModelRunner runner(kModel, {.max_seq_tokens = kMaxPromptTokens + kNumGenerated,
                              .max_chunk_tokens = kMaxPromptTokens,
                              .num_threads = 8,
                              .device = device});
  Continuation continuation;
  std::span<const int32_t> next = prompt;
  while (static_cast<int64_t>(continuation.tokens.size()) < kNumGenerated) {
    continuation.logits.push_back(runner.Step({{0, next}}).back());
    const std::vector<float>& logits = continuation.logits.back();
    continuation.tokens.push_back(
        static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    next = std::span<const int32_t>(&continuation.tokens.back(), 1);
  }
  return continuation;
}

class GpuBundledModelTest : public testing::TestWithParam<TestDevice> {};

TEST_P(GpuBundledModelTest, GreedyTokensPartAtNearTiesOnly) {
  const std::vector<int32_t> text = TextTokens();
  const std::shared_ptr<Device> gpu = GetParam().Open();
  int num_parted = 0;
  float largest = 0, largest_gap = 0;
  for (int i = 0; i < kNumPrompts; ++i) {
    const int64_t length = 20 + i * (kMaxPromptTokens - 20) / (kNumPrompts - 1);
    const std::span<const int32_t> prompt(text.data() + 150 * i, length);
    const Continuation cpu = Continue(prompt, nullptr), on_gpu = Continue(prompt, gpu);
    for (size_t t = 0; t < cpu.tokens.size(); ++t) {
      for (size_t token = 0; token < cpu.logits[t].size(); ++token) {
        largest = std::max(largest, std::abs(cpu.logits[t][token] - on_gpu.logits[t][token]));
      }
      if (cpu.tokens[t] == on_gpu.tokens[t]) continue;
      ++num_parted;
      const float gap = cpu.logits[t][cpu.tokens[t]] - cpu.logits[t][on_gpu.tokens[t]];
      largest_gap = std::max(largest_gap, gap);
      break;  // what follows continues other texts
    }
  }
  std::printf(
      "%d of %d continuations of %d tokens part; logits up to there differ by at most %.4f; "
      "the largest gap between the two tokens at a parting is %.4f\n",
      num_parted, kNumPrompts, static_cast<int>(kNumGenerated), largest, largest_gap);
  EXPECT_LT(largest, kTolerance);
  EXPECT_LT(largest_gap, 2 * kTolerance);
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GpuBundledModelTest);
INSTANTIATE_TEST_SUITE_P(Gpus, GpuBundledModelTest, testing::ValuesIn(TestGpus()),
                         [](const auto& info) { return info.param.name(); });

}  // namespace
}  // namespace nsa
