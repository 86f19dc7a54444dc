// On the CPU a sequence's logits are the same bits alone, batched with others, prefilled in any
// chunks, decoded, and on any number of threads.

#include <cstring>

#include "gtest/gtest.h"
#include "tests/engine/golden.h"
#include "tests/engine/model_runner.h"

namespace nsa {
namespace {

constexpr size_t kNumTokens = 200;

testing::AssertionResult SameBits(const Logits& actual, const Logits& expected) {
  if (actual.size() != expected.size()) {
    return testing::AssertionFailure() << actual.size() << " rows, expected " << expected.size();
  }
  for (size_t t = 0; t < actual.size(); ++t) {
    const size_t num_bytes = expected[t].size() * sizeof(float);
    if (std::memcmp(actual[t].data(), expected[t].data(), num_bytes) != 0) {
      return testing::AssertionFailure() << "the logits of token " << t << " differ";
    }
  }
  return testing::AssertionSuccess();
}

struct Case {
  const char* model;
  DType cache_dtype;
};

class BitIdentityTest : public testing::TestWithParam<Case> {
 protected:
  BitIdentityTest() {
    const Golden golden = ReadGolden(GetParam().model);
    folder_ = golden.folder;
    tokens_.assign(golden.tokens.begin(), golden.tokens.begin() + kNumTokens);
    expected_ = ModelRunner(folder_, Options(1, 1)).Feed(0, tokens_, {kNumTokens});
  }

  RunnerOptions Options(int64_t num_seqs, int num_threads) const {
    return {.num_seqs = num_seqs,
            .max_seq_tokens = 256,
            .max_chunk_tokens = kNumTokens,
            .num_threads = num_threads,
            .cache_dtype = GetParam().cache_dtype};
  }
  std::span<const int32_t> Tokens(size_t start, size_t num_tokens) const {
    return std::span<const int32_t>(tokens_).subspan(start, num_tokens);
  }

  std::string folder_;
  std::vector<int32_t> tokens_;
  Logits expected_;  // of tokens_ alone, in one pass, on one thread
};

TEST_P(BitIdentityTest, Chunked) {
  for (const std::vector<int64_t>& chunking :
       {std::vector<int64_t>{1}, {2, 3}, {17}, {64}, {31, 33, 1}, {150}}) {
    ModelRunner runner(folder_, Options(1, 1));
    EXPECT_TRUE(SameBits(runner.Feed(0, tokens_, chunking), expected_)) << chunking[0];
  }
}

TEST_P(BitIdentityTest, RingsAsShortAsTheChunksAllow) {
  for (const int64_t chunk : {1, 5, 48}) {
    RunnerOptions options = Options(1, 1);
    options.max_chunk_tokens = chunk;
    EXPECT_TRUE(SameBits(ModelRunner(folder_, options).Feed(0, tokens_, {chunk}), expected_));
  }
}

TEST_P(BitIdentityTest, OnMoreThreads) {
  for (const int num_threads : {2, 3, 8}) {
    ModelRunner runner(folder_, Options(1, num_threads));
    EXPECT_TRUE(SameBits(runner.Feed(0, tokens_, {100, 1, 99}), expected_)) << num_threads;
  }
}

// Three sequences of other tokens and lengths come and go around sequence 2, in other chunks.
TEST_P(BitIdentityTest, BatchedWithOthers) {
  ModelRunner runner(folder_, Options(4, 2));
  std::vector<int32_t> reversed(tokens_.rbegin(), tokens_.rend());
  const std::span<const int32_t> others(reversed);
  Logits logits;
  size_t done = 0, other_done = 0;
  const auto step = [&](size_t num_tokens, size_t num_others) {
    const Logits all = runner.Step({{0, others.subspan(other_done, num_others)},
                                    {2, Tokens(done, num_tokens)},
                                    {3, others.subspan(other_done, 1)},
                                    {1, others.subspan(other_done / 2, num_others)}});
    logits.insert(logits.end(), all.begin() + num_others, all.begin() + num_others + num_tokens);
    done += num_tokens;
    other_done += num_others;
  };
  step(40, 1);
  step(1, 70);
  step(110, 3);
  while (done < kNumTokens) step(1, 1);
  EXPECT_TRUE(SameBits(logits, expected_));
}

INSTANTIATE_TEST_SUITE_P(
    Models, BitIdentityTest,
    testing::Values(Case{"nsa_paper", DType::kF32}, Case{"nsa_paper", DType::kBF16},
                    Case{"nsa_paper_bf16", DType::kBF16}, Case{"nsa_linear_before", DType::kF32},
                    Case{"nsa_shared", DType::kBF16}, Case{"llama_nsa", DType::kF32},
                    Case{"fla_nsa", DType::kBF16}, Case{"llama", DType::kF32}),
    [](const auto& info) {
      return std::string(info.param.model) + "_" + std::string(DTypeName(info.param.cache_dtype));
    });

}  // namespace
}  // namespace nsa
