// The engine's logits against the PyTorch reference and Hugging Face transformers, on every device.

#include "tests/engine/golden.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/model_runner.h"
#include "tests/support/devices.h"

namespace nsa {
namespace {

constexpr float kTolerance = 1e-4F;  // absolute or relative
// A GPU's activations are of the weights' dtype, those of the reference f32. What the rounding of
// activations to 11 or 8 bits may do to the logits: to one of them, and to all (norm of the
// difference over norm). The PyTorch reference with its activations rounded so shows 0.017 and
// 0.0012 for f16, 0.13 and 0.008 for bf16.
struct Rounding {
  float largest, norm;
};
constexpr Rounding kF16Rounding = {.largest = 0.03F, .norm = 3e-3F};
constexpr Rounding kBf16Rounding = {.largest = 0.25F, .norm = 0.02F};
constexpr int64_t kLongTokens = 4096;

int32_t Greedy(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

class GoldenTest : public testing::TestWithParam<std::tuple<const char*, TestDevice>> {
 protected:
  GoldenTest() : golden_(ReadGolden(std::get<0>(GetParam()))) {}

  RunnerOptions Options(int64_t max_chunk_tokens) const {
    RunnerOptions options{.max_seq_tokens = num_tokens() + 64,
                          .max_chunk_tokens = max_chunk_tokens,
                          .device = device_};
    if (!on_gpu()) options.cache_dtype = DType::kF32;
    return options;
  }
  bool on_gpu() const { return device_->type() == DeviceType::kCuda; }
  bool is_bf16() const { return golden_.folder.ends_with("_bf16"); }
  bool is_f16() const { return golden_.folder.ends_with("/llama_rope_linear"); }
  Rounding rounding() const {
    if (on_gpu() && is_bf16()) return kBf16Rounding;
    if (on_gpu() && is_f16()) return kF16Rounding;
    return {.largest = kTolerance, .norm = kTolerance};
  }
  int64_t num_tokens() const { return static_cast<int64_t>(golden_.tokens.size()); }
  bool is_long() const { return num_tokens() > kLongTokens; }

  void ExpectGolden(const Logits& logits) const {
    ASSERT_EQ(logits.size(), golden_.tokens.size());
    double squares = 0, difference_squares = 0;
    for (size_t i = 0; i < golden_.positions.size(); ++i) {
      const std::vector<float>& actual = logits[golden_.positions[i]];
      ASSERT_EQ(actual.size(), golden_.logits[i].size());
      for (size_t token = 0; token < actual.size(); ++token) {
        const float expected = golden_.logits[i][token];
        ASSERT_NEAR(actual[token], expected,
                    rounding().largest * std::max(1.0F, std::abs(expected)))
            << "position " << golden_.positions[i] << ", token " << token;
        squares += std::pow(expected, 2);
        difference_squares += std::pow(actual[token] - expected, 2);
      }
    }
    EXPECT_LT(std::sqrt(difference_squares / squares), rounding().norm);
  }

  const Golden golden_;
  const std::shared_ptr<Device> device_ = std::get<1>(GetParam()).Open();
};

TEST_P(GoldenTest, PrefillInOnePass) {
  ModelRunner runner(golden_.folder, Options(num_tokens()));
  ExpectGolden(runner.Feed(0, golden_.tokens, {num_tokens()}));
}

TEST_P(GoldenTest, PrefillInOddChunks) {
  const std::vector<std::vector<int64_t>> chunkings =
      is_long() ? std::vector<std::vector<int64_t>>{{509, 1, 770}}
                : std::vector<std::vector<int64_t>>{{1, 7, 31}, {13}, {64, 5}, {100, 33, 2}};
  for (const std::vector<int64_t>& chunking : chunkings) {
    ModelRunner runner(golden_.folder,
                       Options(*std::max_element(chunking.begin(), chunking.end())));
    ExpectGolden(runner.Feed(0, golden_.tokens, chunking));
  }
}

// Token by token, except for the stretches of a long sequence whose logits are not kept.
TEST_P(GoldenTest, Decode) {
  constexpr int64_t kSkipTokens = 512;
  ModelRunner runner(golden_.folder, Options(is_long() ? kSkipTokens : 1));
  Logits logits;
  const std::span<const int32_t> tokens = golden_.tokens;
  for (size_t next = 0; next < tokens.size();) {
    const auto kept = std::lower_bound(golden_.positions.begin(), golden_.positions.end(), next);
    const size_t gap = kept == golden_.positions.end() ? tokens.size() - next : *kept - next;
    const size_t length = is_long() ? std::clamp<size_t>(gap, 1, kSkipTokens) : 1;
    Logits step = runner.Step({{0, tokens.subspan(next, length)}});
    std::move(step.begin(), step.end(), std::back_inserter(logits));
    next += length;
  }
  ExpectGolden(logits);
}

TEST_P(GoldenTest, GreedyContinuation) {
  ModelRunner runner(golden_.folder, Options(golden_.num_prompt_tokens));
  const std::span<const int32_t> prompt(golden_.tokens.data(), golden_.num_prompt_tokens);
  std::vector<int32_t> generated = {Greedy(runner.Step({{0, prompt}}).back())};
  while (generated.size() < golden_.greedy.size()) {
    const std::span<const int32_t> last(&generated.back(), 1);
    generated.push_back(Greedy(runner.Step({{0, last}}).back()));
  }
  if (on_gpu() && is_bf16()) generated.resize(1);  // near ties part the ways later on
  EXPECT_THAT(generated, testing::ElementsAreArray(
                             golden_.greedy.begin(),
                             golden_.greedy.begin() + static_cast<int64_t>(generated.size())));
}

float LargestDifference(const Golden& golden, const Logits& logits) {
  float largest = 0;
  for (size_t i = 0; i < golden.positions.size(); ++i) {
    for (size_t token = 0; token < golden.logits[i].size(); ++token) {
      const float actual = logits[golden.positions[i]][token];
      largest = std::max(largest, std::abs(actual - golden.logits[i][token]));
    }
  }
  return largest;
}

// The goldens can fail: each setting, changed a little, moves the logits far beyond the tolerance.
TEST(GoldenSensitivityTest, EverySettingShowsInTheLogits) {
  const std::pair<const char*, const char*> changes[] = {
      {"\"num_selected\": 8", "\"num_selected\": 7"},
      {"\"num_initial\": 1", "\"num_initial\": 0"},
      {"\"num_local\": 2", "\"num_local\": 3"},
      {"\"window_tokens\": 128", "\"window_tokens\": 127"},
      {"\"cmp_rope\": \"after\"", "\"cmp_rope\": \"none\""},
      {"\"rope_theta\": 10000.0", "\"rope_theta\": 10100.0"},
      {"\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 1e-03"},
  };
  const Golden golden = ReadGolden("nsa_paper");
  const int64_t num_tokens = static_cast<int64_t>(golden.tokens.size());
  for (const auto& [from, to] : changes) {
    const std::string folder = CopyModel("nsa_paper");
    std::ifstream in(folder + "/config.json");
    std::string config((std::istreambuf_iterator<char>(in)), {});
    const size_t at = config.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    std::ofstream(folder + "/config.json") << config.replace(at, std::strlen(from), to);
    ModelRunner runner(folder, {.max_seq_tokens = num_tokens, .max_chunk_tokens = num_tokens});
    const Logits logits = runner.Feed(0, golden.tokens, {num_tokens});
    EXPECT_GT(LargestDifference(golden, logits), 20 * kTolerance) << to;
    std::filesystem::remove_all(folder);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, GoldenTest,
    testing::Combine(testing::Values("nsa_mean_before", "nsa_mean_after", "nsa_mean_none",
                                     "nsa_weighted_pool_before", "nsa_weighted_pool_after",
                                     "nsa_weighted_pool_none", "nsa_linear_before",
                                     "nsa_linear_after", "nsa_linear_none", "nsa_mlp_before",
                                     "nsa_mlp_after", "nsa_mlp_none", "nsa_paper", "nsa_paper_bf16",
                                     "nsa_paper_long", "nsa_shared", "llama_nsa", "llama_nsa_long",
                                     "fla_nsa", "fla_nsa_default_heads", "llama",
                                     "llama_rope_llama3", "llama_rope_linear"),
                     testing::ValuesIn(TestDevices())),
    [](const auto& info) {
      return std::string(std::get<0>(info.param)) + "_" + std::get<1>(info.param).name();
    });

}  // namespace
}  // namespace nsa
