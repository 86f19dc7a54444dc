#include "engine/attention/nsa_attention.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

namespace nsa {
namespace {

ModelConfig Config(bool shared_kv) {
  ModelConfig config;
  config.num_layers = 3;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.d_k = 8;
  config.d_v = 6;
  config.nsa = NsaConfig{.shape = {.span_tokens = 8,
                                   .span_stride = 4,
                                   .block_tokens = 16,
                                   .num_selected = 4,
                                   .num_initial = 1,
                                   .num_local = 2,
                                   .window_tokens = 20},
                         .shared_kv = shared_kv};
  return config;
}

constexpr AttentionOptions kOptions{.cache_dtype = DType::kBF16};

TEST(NsaAttentionTest, KeepsRecentPagesForSeparateKvOnly) {
  const CacheSpec separate = NsaAttention(Config(false), kOptions).cache_spec();
  EXPECT_EQ(separate.page_tokens, 16);
  EXPECT_EQ(separate.num_layers, 3);
  EXPECT_EQ(separate.dtype, DType::kBF16);
  ASSERT_EQ(separate.page_segments.size(), 2U);
  EXPECT_EQ(separate.page_segments[0].num_rows, 16);
  EXPECT_EQ(separate.page_segments[1].num_rows, 4);
  ASSERT_EQ(separate.recent_segments.size(), 2U);
  EXPECT_EQ(separate.recent_segments[0].num_rows, 16);
  EXPECT_EQ(separate.recent_segments[1].num_rows, 16);
  EXPECT_EQ(separate.lookback_tokens, 20 - 1);
  const CacheSpec shared = NsaAttention(Config(true), kOptions).cache_spec();
  EXPECT_EQ(shared.page_segments.size(), 2U);
  EXPECT_EQ(shared.BytesPerRecentPage(), 0);
  EXPECT_EQ(shared.lookback_tokens, 0);
}

// Counts what the branches of one decode step read, row by row.
int64_t CountRows(const NsaShape& shape, int64_t num_tokens) {
  const int64_t position = num_tokens - 1, own_block = position / shape.block_tokens;
  int64_t num_read = 0;
  for (int64_t row = 0; row * shape.span_stride + shape.span_tokens <= num_tokens; ++row) {
    ++num_read;
  }
  std::vector<int64_t> chosen;
  for (int64_t block = 0; block <= own_block; ++block) {
    if (shape.IsForced(block, own_block)) chosen.push_back(block);
  }
  for (int64_t block = 0; block <= own_block; ++block) {
    const bool has_room = static_cast<int64_t>(chosen.size()) < shape.num_selected;
    if (!shape.IsForced(block, own_block) && has_room) chosen.push_back(block);
  }
  for (const int64_t block : chosen) {
    num_read += std::min((block + 1) * shape.block_tokens, num_tokens) - block * shape.block_tokens;
  }
  return num_read + std::min(num_tokens, shape.window_tokens);
}

TEST(NsaAttentionTest, DecodeTrafficCountsEveryReadRow) {
  const ModelConfig config = Config(false);
  const NsaAttention attention(config, kOptions);
  constexpr int64_t kRowBytes = 3 * 2 * (8 + 6) * 2;  // layers * KV heads * (d_k + d_v) * bf16
  for (int64_t num_tokens = 1; num_tokens < 200; ++num_tokens) {
    const KvTraffic traffic = attention.DecodeTraffic(num_tokens);
    EXPECT_EQ(traffic.read_bytes, CountRows(config.nsa->shape, num_tokens) * kRowBytes)
        << num_tokens;
    EXPECT_EQ(traffic.dense_bytes, num_tokens * kRowBytes);
    const int64_t num_blocks = (num_tokens + 15) / 16;
    EXPECT_EQ(traffic.visible_blocks, num_blocks);
    EXPECT_EQ(traffic.chosen_blocks, std::min<int64_t>(num_blocks, 4));
  }
}

// docs/nsa.md, 4: 4095 rows, 16 blocks and a window of 512 at 64k tokens.
TEST(NsaAttentionTest, DecodeTrafficOfThePapersShape) {
  ModelConfig config = Config(false);
  config.nsa->shape = NsaShape();
  const KvTraffic traffic = NsaAttention(config, kOptions).DecodeTraffic(65536);
  EXPECT_EQ(traffic.dense_bytes / 65536 * (4095 + 1024 + 512), traffic.read_bytes);
}

TEST(NsaAttentionDeathTest, SharedKvHasNoUnrotatedKeys) {
  ModelConfig config = Config(true);
  config.nsa->cmp_rope = CmpRope::kAfter;
  EXPECT_DEATH(NsaAttention(config, kOptions), "rotated keys only");
}

}  // namespace
}  // namespace nsa
