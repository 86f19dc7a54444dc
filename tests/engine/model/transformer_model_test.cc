// The shared body beyond its logits, which golden_test.cc compares: overrides, dtypes, memory.

#include "engine/model/transformer_model.h"

#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/engine/golden.h"
#include "tests/engine/model_runner.h"

namespace nsa {
namespace {

using Json = nlohmann::json;

Json ReadJson(const std::string& path) {
  std::ifstream file(path);
  return Json::parse(file);
}

// The file's bytes with its header changed; the tensors' bytes stay where they are.
void EditHeader(const std::string& path, const std::function<void(Json&)>& edit) {
  std::ifstream in(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  Json header = Json::parse(bytes.substr(8, header_bytes));
  edit(header);
  const std::string text = header.dump();
  const uint64_t num_bytes = text.size();
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&num_bytes), sizeof(num_bytes));
  out << text << bytes.substr(8 + header_bytes);
}

// The same projections under Llama's own attention: drop the gates and the sparse settings.
TEST(TransformerModelTest, TheFullOverrideIsLlamaOfTheSameWeights) {
  const Golden golden = ReadGolden("llama_nsa");
  const std::string folder = CopyModel("llama_nsa");
  Json config = ReadJson(folder + "/config.json");
  config["architectures"] = {"LlamaForCausalLM"};
  config["model_type"] = "llama";
  std::ofstream(folder + "/config.json") << config.dump();
  EditHeader(folder + "/model.safetensors", [](Json& header) {
    for (const char* layer : {"0", "1"}) {
      const std::string prefix = std::string("model.layers.") + layer + ".self_attn.";
      header["unused" + std::string(layer) + ".rotary_emb.inv_freq"] =
          header[prefix + "g_proj.weight"];
      header.erase(prefix + "g_proj.weight");
    }
  });
  const RunnerOptions options{.max_seq_tokens = 320, .max_chunk_tokens = 100};
  RunnerOptions full = options;
  full.attention = "full";
  const std::span<const int32_t> tokens = std::span(golden.tokens).first(300);
  const Logits expected = ModelRunner(folder, options).Feed(0, tokens, {100});
  EXPECT_EQ(ModelRunner(golden.folder, full).Feed(0, tokens, {100}), expected);
  EXPECT_NE(ModelRunner(golden.folder, options).Feed(0, tokens, {100}), expected);
  std::filesystem::remove_all(folder);
}

TEST(TransformerModelTest, TheCachesDtypeFollowsTheWeightsUnlessAsked) {
  const auto dtype = [](const char* name, std::optional<DType> asked) {
    const ModelRunner runner("tests/golden/" + std::string(name), {.cache_dtype = asked});
    return runner.model().attention().cache_spec().dtype;
  };
  EXPECT_EQ(dtype("nsa_paper_bf16", std::nullopt), DType::kBF16);
  EXPECT_EQ(dtype("nsa_paper", std::nullopt), DType::kF32);
  EXPECT_EQ(dtype("llama_rope_linear", std::nullopt), DType::kF32);  // f16 weights
  EXPECT_EQ(dtype("nsa_paper_bf16", DType::kF32), DType::kF32);
  EXPECT_EQ(dtype("nsa_paper", DType::kBF16), DType::kBF16);
}

TEST(TransformerModelTest, TiedWeightsAreHeldOnce) {
  const ModelRunner tied("tests/golden/nsa_paper_bf16", {});
  const ModelConfig& config = tied.model().config();
  ASSERT_TRUE(config.tie_embeddings);
  const int64_t file_bytes = [] {
    int64_t total = 0;
    for (const auto& entry : std::filesystem::directory_iterator("tests/golden/nsa_paper_bf16")) {
      const std::string name = entry.path().filename();
      if (name.starts_with("model-")) total += static_cast<int64_t>(entry.file_size());
    }
    return total;
  }();
  // phi is held in f32, twice its size in the file, and panels are padded.
  EXPECT_LT(tied.model().weight_bytes(), 3 * file_bytes);
}

TEST(TransformerModelTest, ATiedHeadInTheFileIsIgnored) {
  const std::string folder = CopyModel("llama_nsa");
  Json config = ReadJson(folder + "/config.json");
  ASSERT_TRUE(config["tie_word_embeddings"]);
  EditHeader(folder + "/model.safetensors", [](Json& header) {
    const Json gate = header["model.layers.1.self_attn.g_proj.weight"];
    header.erase("model.layers.1.self_attn.g_proj.weight");
    header["lm_head.weight"] = gate;
  });
  absl::StatusOr<Weights> weights = Weights::Open(folder);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const auto model = MakeModel(*ParseModelConfig(config.dump()), {}, *weights);
  const std::string message(model.status().message());
  EXPECT_NE(message.find("'model.layers.1.self_attn.g_proj.weight' [48, 32] is missing"),
            std::string::npos)
      << message;
  EXPECT_EQ(message.find("lm_head"), std::string::npos) << message;
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace nsa
