#include "engine/model_executor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numeric>

#include "engine/load_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/golden.h"
#include "tests/engine/model_runner.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kCacheBytes = 4 << 20;

LoadOptions Options() {
  return {.executor = {.kv_cache_bytes = kCacheBytes,
                       .max_num_seqs = 3,
                       .max_chunk_tokens = 64,
                       .max_batched_tokens = 100},
          .device = OpenHostDevice(2, "")};
}

std::unique_ptr<ModelExecutor> Load(const std::string& folder,
                                    const LoadOptions& options = Options()) {
  absl::StatusOr<LoadedModel> loaded = LoadModel(folder, options, nullptr);
  NSA_CHECK(loaded.ok()) << loaded.status();
  return std::move(loaded->executor);
}

// A batch of the first tokens of several sequences, each sampled greedily at its end.
Batch MakeBatch(const std::vector<std::vector<int32_t>>& sequences, const Executor& executor) {
  const int64_t page_tokens = executor.limits().page_tokens;
  Batch batch{.num_seqs = static_cast<int64_t>(sequences.size()),
              .max_pages = 3,
              .recent_columns = executor.limits().recent_columns()};
  int32_t next_page = 0;
  for (size_t s = 0; s < sequences.size(); ++s) {
    for (size_t t = 0; t < sequences[s].size(); ++t) {
      batch.token_ids.push_back(sequences[s][t]);
      batch.token_sequence.push_back(static_cast<int32_t>(s));
      batch.token_position.push_back(static_cast<int32_t>(t));
    }
    for (int64_t page = 0; page < batch.max_pages; ++page) {
      const bool is_used = page * page_tokens < static_cast<int64_t>(sequences[s].size());
      batch.page_table.push_back(is_used ? next_page : -1);
      batch.recent_table.push_back(is_used ? next_page : -1);
      if (is_used) ++next_page;
    }
    batch.recent_table.resize((s + 1) * batch.recent_columns, -1);
    batch.logit_tokens.push_back(static_cast<int32_t>(batch.token_ids.size()) - 1);
    batch.rows.push_back({.params = {.temperature = 0}, .num_top_logprobs = 2});
  }
  return batch;
}

TEST(ModelExecutorTest, DividesTheCacheIntoBothKindsOfPages) {
  const auto executor = Load("tests/golden/nsa_paper");
  const CacheSpec& spec = executor->model().attention().cache_spec();
  const ExecutorLimits& limits = executor->limits();
  EXPECT_EQ(limits.page_tokens, 64);
  EXPECT_EQ(limits.max_num_seqs, 3);
  EXPECT_EQ(limits.max_chunk_tokens, 64);
  EXPECT_EQ(limits.max_batched_tokens, 100);
  EXPECT_EQ(limits.vocab_size, 64);
  EXPECT_EQ(limits.lookback_tokens, spec.lookback_tokens);
  // A share for prefixes that are kept, about an eighth of what the sequences leave.
  const int64_t kept_bytes =
      (limits.num_recent_pages - limits.MinRecentPages()) * spec.BytesPerRecentPage();
  const int64_t left_bytes =
      kCacheBytes - limits.MinRecentPages() * spec.BytesPerRecentPage() - spec.BytesPerPage();
  EXPECT_LE(kept_bytes, left_bytes / 8);
  EXPECT_GT(kept_bytes, left_bytes / 8 - spec.BytesPerRecentPage());
  const int64_t recent_bytes = limits.num_recent_pages * spec.BytesPerRecentPage();
  EXPECT_GT(recent_bytes, 0);
  EXPECT_EQ(limits.num_pages, (kCacheBytes - recent_bytes) / spec.BytesPerPage());
  EXPECT_LE(executor->kv_cache_bytes(), kCacheBytes);
  EXPECT_GT(executor->kv_cache_bytes(), kCacheBytes - spec.BytesPerPage());
}

TEST(ModelExecutorTest, NeedsTheRecentPagesAndOnePage) {
  const auto executor = Load("tests/golden/nsa_paper");
  const CacheSpec spec = executor->model().attention().cache_spec();
  const int64_t needed =
      executor->limits().MinRecentPages() * spec.BytesPerRecentPage() + spec.BytesPerPage();
  LoadOptions options = Options();
  options.executor.kv_cache_bytes = needed;
  EXPECT_EQ(Load("tests/golden/nsa_paper", options)->limits().num_pages, 1);
  options.executor.kv_cache_bytes = needed - 1;
  const absl::Status status = LoadModel("tests/golden/nsa_paper", options, nullptr).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("--kv-cache-bytes is " + std::to_string(needed - 1)));
  EXPECT_THAT(std::string(status.message()), HasSubstr("at least " + std::to_string(needed)));
}

TEST(ModelExecutorTest, RefusesOptionsOutOfRange) {
  const auto error = [](void (*change)(ExecutorOptions&)) {
    LoadOptions options = Options();
    change(options.executor);
    return std::string(LoadModel("tests/golden/llama", options, nullptr).status().message());
  };
  EXPECT_THAT(error([](ExecutorOptions& o) { o.max_num_seqs = 0; }),
              HasSubstr("--max-num-seqs is 0; allowed: 1 to"));
  EXPECT_THAT(error([](ExecutorOptions& o) { o.max_chunk_tokens = 101; }),
              HasSubstr("--max-chunk-tokens is 101; allowed: 1 to 100"));
  EXPECT_THAT(error([](ExecutorOptions& o) { o.max_batched_tokens = 0; }),
              HasSubstr("--max-batched-tokens is 0"));
  EXPECT_THAT(error([](ExecutorOptions& o) { o.kv_cache_bytes = int64_t{1} << 55; }),
              HasSubstr("--kv-cache-bytes is 36028797018963968, the device (CPU, 2 threads) has"));
}

// Logits of the executor are the model's own, and greedy rows get the largest of them.
TEST(ModelExecutorTest, SamplesFromTheModelsLogits) {
  const Golden golden = ReadGolden("nsa_paper");
  const std::vector<int32_t> a(golden.tokens.begin(), golden.tokens.begin() + 60);
  const std::vector<int32_t> b(golden.tokens.begin() + 7, golden.tokens.begin() + 40);
  const auto executor = Load(golden.folder);
  const absl::StatusOr<std::vector<SampledToken>> sampled =
      executor->Execute(MakeBatch({a, b}, *executor));
  ASSERT_TRUE(sampled.ok()) << sampled.status();
  ASSERT_EQ(sampled->size(), 2U);
  const std::vector<int32_t>* prompts[] = {&a, &b};
  for (int i = 0; i < 2; ++i) {
    ModelRunner runner(golden.folder, {.max_seq_tokens = 64, .max_chunk_tokens = 64});
    const std::vector<float> logits = runner.Step({{0, *prompts[i]}}).back();
    const auto best = std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float logit : logits) sum += std::exp(logit - *best);
    const SampledToken& token = (*sampled)[i];
    EXPECT_EQ(token.token, best - logits.begin());
    EXPECT_TRUE(token.finite);
    EXPECT_NEAR(token.logprob, -std::log(sum), 1e-5);
    ASSERT_EQ(token.top_logprobs.size(), 2U);
    EXPECT_EQ(token.top_logprobs[0].token, token.token);
    EXPECT_EQ(token.top_logprobs[0].logprob, token.logprob);
    EXPECT_LT(token.top_logprobs[1].logprob, token.logprob);
  }
}

// Allows all tokens but one; not to be read before the forward pass was launched.
class AllBut : public TokenMask {
 public:
  explicit AllBut(int32_t token) : token_(token) {}
  void CopyTo(std::span<int32_t> words) override {
    EXPECT_TRUE(may_be_read);
    std::fill(words.begin(), words.end(), -1);
    words[token_ / 32] &= ~(1 << (token_ % 32));
  }
  bool may_be_read = false;

 private:
  const int32_t token_;
};

TEST(ModelExecutorTest, EditsFollowTheForwardPass) {
  const Golden golden = ReadGolden("nsa_paper");
  const auto part = [&](size_t from, size_t num_tokens) {
    const auto first = golden.tokens.begin() + static_cast<int64_t>(from);
    return std::vector<int32_t>(first, first + static_cast<int64_t>(num_tokens));
  };
  const auto executor = Load(golden.folder);
  Batch batch = MakeBatch({part(0, 60), part(9, 20), part(40, 13)}, *executor);
  const std::vector<SampledToken> plain = *executor->Execute(batch);
  batch.num_edited_rows = 3;
  for (int32_t row = 0; row < 3; ++row) batch.rows[row].edited_row = row;
  AllBut mask(plain[0].token);
  // Of the first row the likeliest token is forbidden, the second has ended, of the third another
  // token is made the likeliest.
  const int32_t wanted = plain[2].top_logprobs[1].token;
  const RowEdits edits{.rows = {0, 1, 2},
                       .edit_end = {0, 0, 1},
                       .mask_of = {0, -1, -1},
                       .edits = {{.token = wanted, .shift = 100}},
                       .masks = {&mask}};
  executor->Launch(batch);
  mask.may_be_read = true;
  executor->LaunchSampling(edits);
  const std::vector<SampledToken> edited = *executor->Collect();
  EXPECT_EQ(edited[0].token, plain[0].top_logprobs[1].token);
  EXPECT_EQ(edited[0].logprob, plain[0].top_logprobs[1].logprob);  // the model's own
  EXPECT_EQ(edited[1].token, plain[1].token);
  EXPECT_EQ(edited[1].logprob, plain[1].logprob);
  EXPECT_EQ(edited[2].token, wanted);
}

TEST(ModelExecutorTest, TheLargestStepMayEditEveryTokenOfEverySequence) {
  const auto executor = Load("tests/golden/nsa_paper");
  const std::vector<int32_t> longest(64, 5), rest(35, 6), one(1, 7);
  Batch batch = MakeBatch({longest, rest, one}, *executor);
  batch.num_edited_rows = 3;
  AllBut mask(5);
  mask.may_be_read = true;
  RowEdits edits{.masks = {&mask, &mask, &mask}};
  for (int32_t row = 0; row < 3; ++row) {
    batch.rows[row].edited_row = row;
    edits.rows.push_back(row);
    edits.mask_of.push_back(row);
    for (int32_t token = 0; token < executor->limits().vocab_size; ++token) {
      edits.edits.push_back({.token = token, .shift = token == 20 + row ? 100.0F : -100.0F});
    }
    edits.edit_end.push_back(static_cast<int32_t>(edits.edits.size()));
  }
  const std::vector<SampledToken> sampled = *executor->Execute(batch, edits);
  for (int32_t row = 0; row < 3; ++row) EXPECT_EQ(sampled[row].token, 20 + row);
}

TEST(ModelExecutorTest, TheWorkspaceIsWhatWasPlanned) {
  const LoadOptions options = Options();
  const auto executor = Load("tests/golden/nsa_paper", options);
  const absl::StatusOr<MemoryPlan> plan =
      PlanMemory(executor->model(), executor->device(), options.executor);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(executor->workspace_bytes(), plan->workspace_bytes + plan->step_bytes());
}

TEST(ModelExecutorTest, AStepWithoutRowsOnlyFillsTheCache) {
  const Golden golden = ReadGolden("llama");
  const auto executor = Load(golden.folder);
  const std::vector<int32_t> tokens(golden.tokens.begin(), golden.tokens.begin() + 40);
  Batch whole = MakeBatch({tokens}, *executor);
  const TensorView logits = executor->ForwardLogits(whole);
  const std::vector<float> expected(logits.data<float>(), logits.data<float>() + 64);

  Batch first = MakeBatch({std::vector<int32_t>(tokens.begin(), tokens.begin() + 39)}, *executor);
  first.logit_tokens.clear();
  first.rows.clear();
  EXPECT_TRUE(executor->Execute(first)->empty());
  Batch last = MakeBatch({{tokens.back()}}, *executor);
  last.token_position = {39};
  const TensorView again = executor->ForwardLogits(last);
  EXPECT_EQ(std::vector<float>(again.data<float>(), again.data<float>() + 64), expected);
}

// One token's embedding is NaN: only the sequence that uses it is hurt, and its pages are
// harmless to the next sequence in them.
TEST(ModelExecutorTest, NonFiniteLogitsStayWithTheirSequence) {
  constexpr int32_t kBadToken = 63;
  const std::string folder = CopyModel("nsa_paper");
  {
    const absl::StatusOr<MappedFile> file = MappedFile::Open(folder + "/model.safetensors");
    ASSERT_TRUE(file.ok());
    const SafetensorsTable table = *ParseSafetensors(file->bytes(), "m");
    const std::span<const uint8_t> row = table.at("model.embed_tokens.weight").bytes;
    const auto offset = row.data() - file->bytes().data() + kBadToken * 32 * sizeof(float);
    std::fstream stream(folder + "/model.safetensors",
                        std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(static_cast<std::streamoff>(offset));
    const float nan = std::numeric_limits<float>::quiet_NaN();
    stream.write(reinterpret_cast<const char*>(&nan), sizeof(nan));
  }
  const std::vector<int32_t> good = {1, 2, 3, 4, 5, 6, 7, 8};
  const std::vector<int32_t> bad = {1, kBadToken, 3};
  const auto fresh = Load(folder);
  const auto alone = *fresh->Execute(MakeBatch({good}, *fresh));
  const auto executor = Load(folder);
  const auto both = *executor->Execute(MakeBatch({bad, good}, *executor));
  EXPECT_FALSE(both[0].finite);
  EXPECT_GE(both[0].token, 0);
  EXPECT_LT(both[0].token, 64);
  EXPECT_TRUE(both[1].finite);
  EXPECT_EQ(both[1].token, alone[0].token);
  EXPECT_EQ(both[1].logprob, alone[0].logprob);
  const auto after = *executor->Execute(MakeBatch({good}, *executor));  // in the pages of `bad`
  EXPECT_TRUE(after[0].finite);
  EXPECT_EQ(after[0].logprob, alone[0].logprob);
  std::filesystem::remove_all(folder);
}

// Overwrites the selected branch's K and V of a page for one layer and KV head.
void Spoil(ModelExecutor& executor, int64_t layer, int64_t head, int64_t page) {
  const KvCache::KvTensors sel = executor.cache().PageTensors(layer, /*segment=*/0);
  for (const TensorView& tensor : {sel.k, sel.v}) {
    float* const rows = tensor.data<float>() + page * tensor.stride(0) + head * tensor.stride(1);
    std::fill(rows, rows + tensor.stride(1), std::numeric_limits<float>::quiet_NaN());
  }
}

// The blocks of a trace are those that the step reads: what lies in others does not matter, what
// lies in any one of them does.
TEST(ModelExecutorTest, ATraceNamesTheBlocksThatAreRead) {
  const Golden golden = ReadGolden("nsa_weighted_pool_after");  // 2 layers, 2 KV heads, 6 blocks
  const auto executor = Load(golden.folder);
  constexpr int64_t kNumPages = 12, kNumChosen = 6;
  const std::vector<int32_t> other(golden.tokens.begin(), golden.tokens.begin() + 2);
  const auto batch_of = [&](int64_t first, int64_t num_tokens) {
    const auto from = golden.tokens.begin() + first;
    Batch batch = MakeBatch({other, {from, from + num_tokens}}, *executor);
    batch.max_pages = kNumPages;
    batch.page_table.assign(2 * kNumPages, -1);
    batch.page_table[0] = kNumPages;
    std::iota(batch.page_table.begin() + kNumPages, batch.page_table.end(), 0);
    for (int64_t i = 0; i < num_tokens; ++i)
      batch.token_position[2 + i] += static_cast<int32_t>(first);
    std::iota(batch.recent_table.begin(), batch.recent_table.end(), 0);
    return batch;
  };
  ASSERT_TRUE(executor->Execute(batch_of(0, 64)).ok());
  ASSERT_TRUE(executor->Execute(batch_of(64, 26)).ok());
  Batch decode = batch_of(90, 1);
  EXPECT_TRUE((*executor->Execute(decode))[1].blocks.empty());
  decode.traced_rows = {1};
  const std::vector<SampledToken> sampled = *executor->Execute(decode);
  EXPECT_TRUE(sampled[0].blocks.empty());
  const std::vector<int32_t>& blocks = sampled[1].blocks;
  ASSERT_EQ(blocks.size(), 2U * 2 * kNumChosen);
  const auto is_chosen = [&](int64_t layer, int64_t head, int64_t page) {
    const auto first = blocks.begin() + (layer * 2 + head) * kNumChosen;
    EXPECT_TRUE(std::is_sorted(first, first + kNumChosen));
    return std::find(first, first + kNumChosen, page) != first + kNumChosen;
  };
  int64_t num_spoilt = 0;
  for (int64_t i = 0; i < 2 * 2 * kNumPages; ++i) {
    const int64_t layer = i / (2 * kNumPages), head = i / kNumPages % 2, page = i % kNumPages;
    if (is_chosen(layer, head, page)) continue;
    Spoil(*executor, layer, head, page);
    ++num_spoilt;
  }
  EXPECT_EQ(num_spoilt, 2 * 2 * (kNumPages - kNumChosen));
  const SampledToken again = (*executor->Execute(decode))[1];
  EXPECT_TRUE(again.finite);
  EXPECT_EQ(again.logprob, sampled[1].logprob);
  EXPECT_EQ(again.blocks, blocks);
  Spoil(*executor, 1, 1, blocks.end()[-kNumChosen]);
  EXPECT_FALSE((*executor->Execute(decode))[1].finite);
}

TEST(ModelExecutorTest, FullAttentionHasNoBlocksToTrace) {
  const auto executor = Load("tests/golden/llama");
  Batch batch = MakeBatch({{1, 2, 3}}, *executor);
  batch.traced_rows = {0};
  const auto sampled = executor->Execute(batch);
  ASSERT_TRUE(sampled.ok());
  EXPECT_TRUE((*sampled)[0].blocks.empty());
}

TEST(ModelExecutorTest, ReportsTheAttentionsTraffic) {
  const auto executor = Load("tests/golden/nsa_paper");
  const KvTraffic expected = executor->model().attention().DecodeTraffic(777);
  EXPECT_EQ(executor->DecodeTraffic(777).read_bytes, expected.read_bytes);
  EXPECT_EQ(executor->DecodeTraffic(777).dense_bytes, expected.dense_bytes);
}

TEST(ModelExecutorDeathTest, ABatchBeyondTheLimitsIsAProgrammerError) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // the executor has threads
  const auto executor = Load("tests/golden/llama");
  const std::vector<int32_t> long_chunk(65, 1);
  EXPECT_DEATH(executor->ForwardLogits(MakeBatch({long_chunk}, *executor)), "65 against 64");
  EXPECT_DEATH(executor->ForwardLogits(MakeBatch({{1}, {1}, {1}, {1}}, *executor)), "4 against 3");
  Batch batch = MakeBatch({{1}}, *executor);
  batch.page_table[0] = static_cast<int32_t>(executor->limits().num_pages);
  EXPECT_DEATH(executor->ForwardLogits(batch), "num_pages");
}

TEST(ModelExecutorDeathTest, EditsComeBetweenTheirLaunchAndTheNextCall) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto executor = Load("tests/golden/llama");
  Batch batch = MakeBatch({{1}}, *executor);
  executor->Launch(batch);
  EXPECT_DEATH(executor->LaunchSampling({}), "no step awaits edits");
  ASSERT_TRUE(executor->Collect().ok());
  batch.num_edited_rows = 1;
  batch.rows[0].edited_row = 0;
  executor->Launch(batch);
  EXPECT_DEATH(executor->Collect().IgnoreError(), "awaits_edits");
  EXPECT_DEATH(executor->LaunchSampling({}), "0 against 1");
}

}  // namespace
}  // namespace nsa
