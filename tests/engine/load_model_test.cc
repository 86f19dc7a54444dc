#include "engine/load_model.h"

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/engine/golden.h"

namespace nsa {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

LoadOptions Options() { return {.executor = {.kv_cache_bytes = 16 << 20}}; }

class BrokenModelTest : public testing::Test {
 protected:
  BrokenModelTest() : folder_(CopyModel("nsa_paper")) {}
  ~BrokenModelTest() override { std::filesystem::remove_all(folder_); }

  void PatchConfig(const char* patch) {
    std::ifstream in(folder_ + "/config.json");
    nlohmann::json config = nlohmann::json::parse(in);
    config.merge_patch(nlohmann::json::parse(patch));
    std::ofstream(folder_ + "/config.json") << config.dump();
  }
  std::string Error() const {
    const absl::Status status = LoadModel(folder_, Options(), nullptr).status();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), StartsWith(folder_ + ": "));
    return std::string(status.message());
  }

  std::string folder_;
};

TEST(LoadModelTest, ReportsItsPhases) {
  std::vector<std::string> phases, details;
  const absl::StatusOr<LoadedModel> loaded =
      LoadModel("tests/golden/nsa_paper", Options(),
                [&](const std::string& phase, const std::string& detail, absl::Duration elapsed) {
                  phases.push_back(phase);
                  details.push_back(detail);
                  EXPECT_GE(elapsed, absl::ZeroDuration());
                });
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(phases, ElementsAre("config", "weights", "kv cache"));
  EXPECT_THAT(details[0], HasSubstr("NsaForCausalLM, 2 layers"));
  EXPECT_THAT(details[2], HasSubstr("pages of 64 tokens, 16 sequences of at most"));
  EXPECT_EQ(loaded->config.architecture, "NsaForCausalLM");
  EXPECT_EQ(loaded->attention, "nsa");
  EXPECT_FALSE(loaded->attention_overridden);
  EXPECT_EQ(loaded->cache_dtype, DType::kF32);
  EXPECT_EQ(loaded->weight_bytes, loaded->executor->model().weight_bytes());
}

TEST(LoadModelTest, SaysWhenAttentionIsOverridden) {
  LoadOptions options = Options();
  options.attention = "full";
  const absl::StatusOr<LoadedModel> sparse = LoadModel("tests/golden/llama_nsa", options, nullptr);
  ASSERT_TRUE(sparse.ok()) << sparse.status();
  EXPECT_EQ(sparse->attention, "full");
  EXPECT_TRUE(sparse->attention_overridden);
  const absl::StatusOr<LoadedModel> dense = LoadModel("tests/golden/llama", options, nullptr);
  ASSERT_TRUE(dense.ok()) << dense.status();
  EXPECT_FALSE(dense->attention_overridden);
}

TEST(LoadModelTest, ChecksComeBeforeTheWeights) {
  std::vector<std::string> phases;
  const auto on_phase = [&](const std::string& phase, const std::string&, absl::Duration) {
    phases.push_back(phase);
  };
  LoadOptions options = Options();
  options.check_config = [](const ModelConfig& config) {
    return absl::InvalidArgumentError(config.architecture + " is not wanted");
  };
  EXPECT_EQ(LoadModel("tests/golden/llama", options, on_phase).status().message(),
            "LlamaForCausalLM is not wanted");
  options = Options();
  options.executor.max_num_seqs = 0;
  EXPECT_FALSE(LoadModel("tests/golden/llama", options, on_phase).ok());
  EXPECT_THAT(phases, testing::Each("config"));
}

// flash-linear-attention's layers have heads of 64 whatever their config says.
TEST(LoadModelTest, FlaHeadsFollowTheTensors) {
  const auto head_dim = [](const char* name) {
    const auto loaded = LoadModel(std::string("tests/golden/") + name, Options(), nullptr);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded->config.d_k;
  };
  EXPECT_EQ(head_dim("fla_nsa"), 8);
  EXPECT_EQ(head_dim("fla_nsa_default_heads"), 64);
}

TEST_F(BrokenModelTest, NamesAMissingFile) {
  std::filesystem::remove(folder_ + "/model.safetensors");
  EXPECT_THAT(Error(), HasSubstr("model.safetensors: no such file"));
  std::filesystem::remove(folder_ + "/config.json");
  EXPECT_THAT(Error(), HasSubstr("config.json: no such file"));
}

TEST_F(BrokenModelTest, NamesATruncatedFile) {
  const auto num_bytes = std::filesystem::file_size(folder_ + "/model.safetensors");
  std::filesystem::resize_file(folder_ + "/model.safetensors", num_bytes - 4);
  EXPECT_THAT(Error(), HasSubstr("model.safetensors: tensor '"));
}

TEST_F(BrokenModelTest, NamesAnUnknownArchitecture) {
  PatchConfig(R"({"architectures": ["MambaForCausalLM"]})");
  EXPECT_THAT(Error(), HasSubstr("MambaForCausalLM"));
}

TEST_F(BrokenModelTest, NamesTensorsThatContradictTheConfig) {
  PatchConfig(R"({"num_hidden_layers": 3})");
  EXPECT_THAT(Error(), HasSubstr("'model.layers.2.input_layernorm.weight' [32] is missing"));
  PatchConfig(R"({"num_hidden_layers": 1})");
  EXPECT_THAT(Error(), HasSubstr("'model.layers.1.input_layernorm.weight' is not part of"));
  PatchConfig(R"({"num_hidden_layers": 2, "vocab_size": 65})");
  EXPECT_THAT(Error(), HasSubstr("'model.embed_tokens.weight' is [64, 32], config.json makes it "
                                 "[65, 32]"));
  PatchConfig(R"({"vocab_size": 64, "nsa_config": {"phi": "linear"}})");
  EXPECT_THAT(Error(), HasSubstr("'model.layers.0.self_attn.cmp.phi_k.weight' [1, 16, 512] is "
                                 "missing"));
}

TEST_F(BrokenModelTest, NamesAnUnknownAttention) {
  LoadOptions options = Options();
  options.attention = "flash";
  const absl::Status status = LoadModel(folder_, options, nullptr).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("'flash'; allowed: nsa, full"));
}

}  // namespace
}  // namespace nsa
