#include "engine/config.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace nsa {
namespace {

using Json = nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Json LlamaConfig() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"vocab_size", 100},
          {"hidden_size", 64},
          {"intermediate_size", 96},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"max_position_embeddings", 512},
          {"rms_norm_eps", 1e-6},
          {"rope_theta", 500000.0},
          {"hidden_act", "silu"},
          {"torch_dtype", "bfloat16"},
          {"bos_token_id", 1},
          {"eos_token_id", {2, 3}}};
}

Json PaperConfig() {
  Json config = LlamaConfig();
  config["architectures"] = {"NsaForCausalLM"};
  config["nsa_config"] = {{"span_tokens", 32},    {"span_stride", 16},    {"block_tokens", 64},
                          {"num_selected", 16},   {"num_initial", 1},     {"num_local", 2},
                          {"window_tokens", 512}, {"phi", "mlp"},         {"phi_hidden", 8},
                          {"cmp_rope", "after"},  {"cmp_position", true}, {"shared_kv", false},
                          {"v_head_dim", 24}};
  return config;
}

Json LlamaNsaConfig() {
  Json config = LlamaConfig();
  config["architectures"] = {"LlamaNSAForCausalLM"};
  config.update({{"block_size", 16}, {"block_counts", 8}, {"window_size", 128}});
  return config;
}

Json FlaConfig() {
  return {{"architectures", {"NSAForCausalLM"}},
          {"model_type", "nsa"},
          {"vocab_size", 100},
          {"hidden_size", 384},
          {"intermediate_size", nullptr},
          {"hidden_ratio", 4},
          {"num_hidden_layers", 2},
          {"num_heads", 16},
          {"num_kv_heads", 1},
          {"head_dim", 32},
          {"norm_eps", 1e-6},
          {"max_position_embeddings", 2048},
          {"hidden_act", "swish"},
          {"block_size", 64},
          {"block_counts", 16},
          {"window_size", 512},
          {"tie_word_embeddings", true}};
}

ModelConfig ParseOk(const Json& json) {
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(json.dump());
  EXPECT_TRUE(config.ok()) << config.status();
  return config.value_or(ModelConfig());
}

TEST(ParseModelConfigTest, ReadsLlama) {
  const ModelConfig config = ParseOk(LlamaConfig());
  EXPECT_EQ(config.architecture, "LlamaForCausalLM");
  EXPECT_EQ(config.vocab_size, 100);
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_EQ(config.intermediate_size, 96);
  EXPECT_EQ(config.num_layers, 2);
  EXPECT_EQ(config.group_size(), 2);
  EXPECT_EQ(config.d_k, 16);  // hidden_size / num_attention_heads
  EXPECT_EQ(config.d_v, 16);
  EXPECT_EQ(config.max_position, 512);
  EXPECT_FLOAT_EQ(config.rms_epsilon, 1e-6F);
  EXPECT_EQ(config.rope_theta, 500000.0);
  EXPECT_EQ(config.rope_scaling, RopeScaling::kNone);
  EXPECT_FALSE(config.tie_embeddings);
  EXPECT_EQ(config.weights_dtype, "bfloat16");
  EXPECT_EQ(config.bos_token, 1);
  EXPECT_THAT(config.eos_tokens, ElementsAre(2, 3));
  EXPECT_FALSE(config.nsa.has_value());
}

TEST(ParseModelConfigTest, DefaultsWhatMayBeAbsent) {
  Json json = LlamaConfig();
  for (const char* key : {"num_key_value_heads", "rope_theta", "bos_token_id", "torch_dtype"}) {
    json.erase(key);
  }
  json["eos_token_id"] = nullptr;
  json["head_dim"] = nullptr;
  json["rope_scaling"] = nullptr;
  json["dtype"] = "float16";
  const ModelConfig config = ParseOk(json);
  EXPECT_EQ(config.num_kv_heads, 4);
  EXPECT_EQ(config.rope_theta, 10000.0);
  EXPECT_EQ(config.d_k, 16);
  EXPECT_EQ(config.weights_dtype, "float16");
  EXPECT_FALSE(config.bos_token.has_value());
  EXPECT_THAT(config.eos_tokens, IsEmpty());
}

TEST(ParseModelConfigTest, ReadsRopeScaling) {
  Json json = LlamaConfig();
  json["rope_scaling"] = {{"type", "linear"}, {"factor", 4.0}};
  EXPECT_EQ(ParseOk(json).rope_scaling, RopeScaling::kLinear);
  EXPECT_EQ(ParseOk(json).rope_factor, 4.0);

  json = LlamaConfig();
  json.erase("rope_theta");
  json["rope_parameters"] = {{"rope_type", "llama3"},   {"rope_theta", 5000.0},
                             {"factor", 8.0},           {"low_freq_factor", 1.0},
                             {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 64}};
  const ModelConfig config = ParseOk(json);
  EXPECT_EQ(config.rope_scaling, RopeScaling::kLlama3);
  EXPECT_EQ(config.rope_theta, 5000.0);
  EXPECT_EQ(config.rope_factor, 8.0);
  EXPECT_EQ(config.rope_original_max_position, 64);
}

TEST(ParseModelConfigTest, ReadsThePaperFamily) {
  const ModelConfig config = ParseOk(PaperConfig());
  ASSERT_TRUE(config.nsa.has_value());
  EXPECT_EQ(config.nsa->shape.span_tokens, 32);
  EXPECT_EQ(config.nsa->shape.span_stride, 16);
  EXPECT_EQ(config.nsa->shape.block_tokens, 64);
  EXPECT_EQ(config.nsa->shape.num_selected, 16);
  EXPECT_EQ(config.nsa->shape.num_initial, 1);
  EXPECT_EQ(config.nsa->shape.num_local, 2);
  EXPECT_EQ(config.nsa->shape.window_tokens, 512);
  EXPECT_EQ(config.nsa->phi, PhiKind::kMlp);
  EXPECT_EQ(config.nsa->phi_hidden, 8);
  EXPECT_EQ(config.nsa->cmp_rope, CmpRope::kAfter);
  EXPECT_TRUE(config.nsa->has_position);
  EXPECT_FALSE(config.nsa->shared_kv);
  EXPECT_EQ(config.d_v, 24);
}

TEST(ParseModelConfigTest, ReadsEveryPhiAndRopeMode) {
  const char* phis[] = {"mean", "weighted_pool", "linear", "mlp"};
  const char* modes[] = {"before", "after", "none"};
  for (int phi = 0; phi < 4; ++phi) {
    for (int mode = 0; mode < 3; ++mode) {
      Json json = PaperConfig();
      json["nsa_config"]["phi"] = phis[phi];
      json["nsa_config"]["cmp_rope"] = modes[mode];
      const ModelConfig config = ParseOk(json);
      EXPECT_EQ(config.nsa->phi, static_cast<PhiKind>(phi));
      EXPECT_EQ(config.nsa->cmp_rope, static_cast<CmpRope>(mode));
    }
  }
}

TEST(ParseModelConfigTest, ReadsLlamaNsa) {
  const ModelConfig config = ParseOk(LlamaNsaConfig());
  ASSERT_TRUE(config.nsa.has_value());
  EXPECT_EQ(config.nsa->shape.span_tokens, 16);
  EXPECT_EQ(config.nsa->shape.span_stride, 16);
  EXPECT_EQ(config.nsa->shape.block_tokens, 16);
  EXPECT_EQ(config.nsa->shape.num_selected, 8);
  EXPECT_EQ(config.nsa->shape.num_initial, 0);
  EXPECT_EQ(config.nsa->shape.num_local, 1);
  EXPECT_EQ(config.nsa->shape.window_tokens, 128);
  EXPECT_EQ(config.nsa->phi, PhiKind::kMean);
  EXPECT_EQ(config.nsa->cmp_rope, CmpRope::kBefore);
  EXPECT_FALSE(config.nsa->has_position);
  EXPECT_TRUE(config.nsa->shared_kv);
}

TEST(ParseModelConfigTest, ReadsFla) {
  const ModelConfig config = ParseOk(FlaConfig());
  EXPECT_EQ(config.num_heads, 16);
  EXPECT_EQ(config.num_kv_heads, 1);
  EXPECT_EQ(config.d_k, 32);
  EXPECT_EQ(config.intermediate_size, 1024);  // 384 * 4 * 2/3
  EXPECT_TRUE(config.tie_embeddings);
  EXPECT_EQ(config.nsa->shape.num_initial, 1);
  EXPECT_EQ(config.nsa->shape.num_local, 2);
  EXPECT_EQ(config.nsa->shape.block_tokens, 64);
}

struct Refusal {
  const char* patch;  // JSON merge patch on the base config
  absl::StatusCode code;
  std::vector<std::string> words;
};

void ExpectRefusals(const Json& base, const std::vector<Refusal>& refusals) {
  for (const Refusal& refusal : refusals) {
    Json json = base;
    json.merge_patch(Json::parse(refusal.patch));
    const absl::StatusOr<ModelConfig> config = ParseModelConfig(json.dump());
    ASSERT_FALSE(config.ok()) << refusal.patch;
    EXPECT_EQ(config.status().code(), refusal.code) << config.status();
    for (const std::string& word : refusal.words) {
      EXPECT_THAT(std::string(config.status().message()), HasSubstr(word)) << refusal.patch;
    }
  }
}

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kUnsupported = absl::StatusCode::kUnimplemented;

TEST(ParseModelConfigTest, RefusesWithKeyValueAndLimit) {
  ExpectRefusals(
      LlamaConfig(),
      {{R"({"vocab_size": 0})", kInvalid, {"vocab_size is 0", "from 1 to 16777216"}},
       {R"({"vocab_size": null})", kInvalid, {"vocab_size is missing"}},
       {R"({"vocab_size": "100"})", kInvalid, {"vocab_size is \"100\"", "an integer"}},
       {R"({"vocab_size": 100.5})", kInvalid, {"vocab_size is 100.5"}},
       {R"({"vocab_size": 18446744073709551615})",
        kInvalid,
        {"vocab_size is 18446744073709551615"}},
       {R"({"vocab_size": [1]})", kInvalid, {"vocab_size is an array"}},
       {R"({"hidden_size": -64})", kInvalid, {"hidden_size is -64"}},
       {R"({"num_hidden_layers": 5000})", kInvalid, {"num_hidden_layers is 5000", "4096"}},
       {R"({"num_attention_heads": 5})",
        kInvalid,
        {"num_attention_heads is 5", "a multiple of num_key_value_heads (2)"}},
       {R"({"head_dim": 15})", kInvalid, {"head_dim is 15", "even"}},
       {R"({"head_dim": 258})", kInvalid, {"head_dim is 258", "256"}},
       {R"({"hidden_size": 2})", kInvalid, {"head_dim is 0"}},
       {R"({"rms_norm_eps": 0})", kInvalid, {"rms_norm_eps is 0", "above 0"}},
       {R"({"rms_norm_eps": true})", kInvalid, {"rms_norm_eps is true"}},
       {R"({"rope_theta": -1})", kInvalid, {"rope_theta is -1"}},
       {R"({"max_position_embeddings": 0})", kInvalid, {"max_position_embeddings is 0"}},
       {R"({"tie_word_embeddings": 1})", kInvalid, {"tie_word_embeddings is 1", "true or false"}},
       {R"({"bos_token_id": 100})", kInvalid, {"bos_token_id is 100", "0 to 99"}},
       {R"({"eos_token_id": [2, 100]})", kInvalid, {"eos_token_id is 100"}},
       {R"({"torch_dtype": 16})", kInvalid, {"torch_dtype is 16", "a string"}},
       {R"({"hidden_act": "gelu"})", kUnsupported, {"hidden_act is \"gelu\"", "\"silu\" only"}},
       {R"({"attention_bias": true})", kUnsupported, {"attention_bias is true", "false only"}},
       {R"({"mlp_bias": true})", kUnsupported, {"mlp_bias"}},
       {R"({"quantization_config": {"bits": 4}})", kUnsupported, {"quantization_config"}},
       {R"({"rope_scaling": 3})", kInvalid, {"rope_scaling is 3"}},
       {R"({"rope_scaling": {"rope_type": "yarn", "factor": 2}})",
        kInvalid,
        {"rope_scaling.rope_type is \"yarn\"", "default, linear, llama3"}},
       {R"({"rope_scaling": {"rope_type": "linear"}})",
        kInvalid,
        {"rope_scaling.factor is missing"}},
       {R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
            "high_freq_factor": 4, "original_max_position_embeddings": 64}})",
        kInvalid,
        {"rope_scaling.high_freq_factor is 4", "above low_freq_factor (4)"}},
       {R"({"rope_parameters": {"partial_rotary_factor": 0.5}})",
        kUnsupported,
        {"rope_parameters.partial_rotary_factor is 0.5"}},
       {R"({"architectures": ["GPT2LMHeadModel"]})",
        kUnsupported,
        {"GPT2LMHeadModel", "NsaForCausalLM", "LlamaForCausalLM"}},
       {R"({"architectures": []})", kInvalid, {"architectures is missing"}},
       {R"({"architectures": null})", kInvalid, {"architectures is missing"}}});
}

TEST(ParseModelConfigTest, RefusesVariantsInEveryFamily) {
  for (const Json& base : {LlamaConfig(), PaperConfig(), LlamaNsaConfig(), FlaConfig()}) {
    ExpectRefusals(
        base,
        {{R"({"sliding_window": 4096})", kUnsupported, {"sliding_window is 4096", "null only"}},
         {R"({"sliding_window": 4096, "use_sliding_window": true})",
          kUnsupported,
          {"sliding_window is 4096"}},
         {R"({"use_sliding_window": 0})", kInvalid, {"use_sliding_window is 0"}},
         {R"({"partial_rotary_factor": 0.5})", kUnsupported, {"partial_rotary_factor is 0.5"}},
         {R"({"pretraining_tp": 2})", kUnsupported, {"pretraining_tp is 2", "1 only"}},
         {R"({"model_type": "mistral"})", kUnsupported, {"model_type is \"mistral\""}}});
  }
}

TEST(ParseModelConfigTest, TakesVariantsThatAreSwitchedOff) {
  Json json = LlamaConfig();
  json.update({{"sliding_window", nullptr}, {"partial_rotary_factor", 1}, {"pretraining_tp", 1}});
  json["model_type"] = "llama";
  ParseOk(json);
  json.update({{"sliding_window", 4096}, {"use_sliding_window", false}});
  ParseOk(json);
  json = LlamaNsaConfig();
  json["model_type"] = "llama-nsa";
  ParseOk(json);
}

TEST(ParseModelConfigTest, RefusesContradictorySparseSettings) {
  ExpectRefusals(
      PaperConfig(),
      {{R"({"nsa_config": null})", kInvalid, {"nsa_config is missing"}},
       {R"({"nsa_config": 5})", kInvalid, {"nsa_config is 5"}},
       {R"({"nsa_config": {"window_tokens": null}})", kInvalid, {"nsa_config.window_tokens"}},
       {R"({"nsa_config": {"span_stride": 12}})",
        kInvalid,
        {"nsa_config.span_tokens is 32", "a multiple of span_stride (12)"}},
       {R"({"nsa_config": {"block_tokens": 40}})", kInvalid, {"nsa_config.block_tokens is 40"}},
       {R"({"nsa_config": {"span_tokens": 128}})",
        kInvalid,
        {"nsa_config.span_tokens is 128", "at most block_tokens (64)"}},
       {R"({"nsa_config": {"num_selected": 2}})",
        kInvalid,
        {"nsa_config.num_selected is 2", "num_initial + num_local (1 + 2)"}},
       {R"({"nsa_config": {"phi": "conv"}})",
        kInvalid,
        {"nsa_config.phi is \"conv\"", "mean, weighted_pool, linear, mlp"}},
       {R"({"nsa_config": {"phi_hidden": null}})", kInvalid, {"nsa_config.phi_hidden"}},
       {R"({"nsa_config": {"cmp_rope": "both"}})", kInvalid, {"before, after, none"}},
       {R"({"nsa_config": {"shared_kv": true}})",
        kUnsupported,
        {"nsa_config.cmp_rope is \"after\"", "\"before\" only"}},
       {R"({"nsa_config": {"block_size": 64}})", kInvalid, {"nsa_config.block_size is 64"}},
       {R"({"head_dim": 256, "nsa_config": {"span_tokens": 256, "block_tokens": 256}})",
        kInvalid,
        {"nsa_config.span_tokens is 256", "at most 128"}},
       {R"({"nsa_config": {"v_head_dim": 0}})", kInvalid, {"nsa_config.v_head_dim is 0"}},
       {R"({"hidden_size": 2, "nsa_config": {"v_head_dim": 0}})", kInvalid, {"head_dim is 0"}}});
}

TEST(ParseModelConfigTest, RefusesWhatThePublicFamiliesCannotMean) {
  ExpectRefusals(LlamaNsaConfig(),
                 {{R"({"block_counts": 0})", kInvalid, {"block_counts is 0", "from 1"}},
                  {R"({"block_counts": [16]})", kInvalid, {"block_counts"}},
                  {R"({"window_size": 0})", kInvalid, {"window_size is 0"}},
                  {R"({"head_dim": 256, "block_size": 256})", kInvalid, {"block_size is 256"}},
                  {R"({"block_size": null})", kInvalid, {"block_size is missing"}}});
  ExpectRefusals(FlaConfig(),
                 {{R"({"block_counts": 2})", kInvalid, {"block_counts is 2", "from 3"}},
                  {R"({"qkv_bias": true})", kUnsupported, {"qkv_bias"}},
                  {R"({"elementwise_affine": false})", kUnsupported, {"elementwise_affine"}},
                  {R"({"hidden_act": "relu"})", kInvalid, {"hidden_act", "swish, silu"}},
                  {R"({"num_heads": 7, "num_kv_heads": 2})", kInvalid, {"num_heads is 7"}},
                  {R"({"norm_eps": null})", kInvalid, {"norm_eps is missing"}}});
}

TEST(ParseModelConfigTest, RefusesWhatIsNoJsonObject) {
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("{\"vocab_size\": 1e999}"),
        std::string("\xff\xfe"), std::string(200000, '[')}) {
    const absl::StatusOr<ModelConfig> config = ParseModelConfig(text);
    ASSERT_FALSE(config.ok());
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("not a JSON object"));
  }
}

TEST(ParseModelConfigTest, SurvivesDeepNestingInAValue) {
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  std::string text = LlamaConfig().dump();
  text.replace(text.find("\"vocab_size\":100"), 16, "\"vocab_size\":" + deep);
  EXPECT_THAT(std::string(ParseModelConfig(text).status().message()),
              HasSubstr("vocab_size is an array"));
}

}  // namespace
}  // namespace nsa
