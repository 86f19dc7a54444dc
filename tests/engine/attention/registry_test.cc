#include "engine/attention/registry.h"

#include "engine/attention/dense_attention.h"
#include "engine/attention/nsa_attention.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;

ModelConfig Config(bool is_sparse) {
  ModelConfig config;
  config.architecture = "Some";
  config.num_layers = 1;
  config.num_heads = config.num_kv_heads = 1;
  config.d_k = config.d_v = 8;
  if (is_sparse) config.nsa.emplace();
  return config;
}

TEST(AttentionRegistryTest, MakesEachVariant) {
  EXPECT_EQ(NativeAttention(Config(true)), "nsa");
  EXPECT_EQ(NativeAttention(Config(false)), "full");
  const auto nsa = MakeAttention("nsa", Config(true), {});
  ASSERT_TRUE(nsa.ok()) << nsa.status();
  EXPECT_NE(dynamic_cast<NsaAttention*>(nsa->get()), nullptr);
  for (const bool is_sparse : {true, false}) {
    const auto full = MakeAttention("full", Config(is_sparse), {});
    ASSERT_TRUE(full.ok()) << full.status();
    EXPECT_NE(dynamic_cast<DenseAttentionVariant*>(full->get()), nullptr);
  }
}

TEST(AttentionRegistryTest, RefusesWhatCannotRun) {
  const absl::Status no_settings = MakeAttention("nsa", Config(false), {}).status();
  EXPECT_THAT(std::string(no_settings.message()), HasSubstr("Some does not have"));
  const absl::Status unknown = MakeAttention("flash", Config(true), {}).status();
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("'flash'; allowed: nsa, full"));
}

}  // namespace
}  // namespace nsa
