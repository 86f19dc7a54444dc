#include "engine/attention/dense_attention.h"

#include "gtest/gtest.h"

namespace nsa {
namespace {

ModelConfig Config() {
  ModelConfig config;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.d_k = 8;
  config.d_v = 6;
  return config;
}

constexpr AttentionOptions kOptions{.cache_dtype = DType::kF32};

TEST(DenseAttentionVariantTest, CachesPagesOfTokensAlone) {
  const CacheSpec spec = DenseAttentionVariant(Config(), kOptions).cache_spec();
  EXPECT_EQ(spec.page_tokens, 64);
  ASSERT_EQ(spec.page_segments.size(), 1U);
  EXPECT_EQ(spec.BytesPerPage(), 64 * 2 * (8 + 6) * 4 * 2);
  EXPECT_EQ(spec.BytesPerRecentPage(), 0);
  EXPECT_EQ(spec.lookback_tokens, 0);
}

TEST(DenseAttentionVariantTest, CachesOneStreamOfASparseModelInPagesOfItsBlocks) {
  ModelConfig config = Config();
  config.nsa = NsaConfig{.shared_kv = false};
  config.nsa->shape.block_tokens = 32;
  const CacheSpec spec = DenseAttentionVariant(config, kOptions).cache_spec();
  EXPECT_EQ(spec.page_tokens, 32);
  EXPECT_EQ(spec.BytesPerPage(), 32 * 2 * (8 + 6) * 4 * 2);
  EXPECT_EQ(spec.BytesPerRecentPage(), 0);
}

TEST(DenseAttentionVariantTest, DecodeReadsEveryToken) {
  const KvTraffic traffic = DenseAttentionVariant(Config(), kOptions).DecodeTraffic(1000);
  EXPECT_EQ(traffic.read_bytes, 1000 * 2 * (8 + 6) * 4 * 2);
  EXPECT_EQ(traffic.dense_bytes, traffic.read_bytes);
  EXPECT_EQ(traffic.visible_blocks, 0);
}

}  // namespace
}  // namespace nsa
