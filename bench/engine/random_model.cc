#include "bench/engine/random_model.h"

#include <cstdint>
#include <fstream>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/dtype.h"

namespace nsa::bench {
namespace {

constexpr char kConfig[] = R"({
  "architectures": ["NsaForCausalLM"],
  "vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1280, "num_hidden_layers": 6,
  "num_attention_heads": 16, "num_key_value_heads": 1, "head_dim": 64, "rms_norm_eps": 1e-5,
  "rope_theta": 500000, "max_position_embeddings": 131072, "tie_word_embeddings": true,
  "hidden_act": "silu", "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
  "nsa_config": {
    "span_tokens": 32, "span_stride": 16, "block_tokens": 64, "num_selected": 16,
    "num_initial": 1, "num_local": 2, "window_tokens": 512, "phi": "mlp", "phi_hidden": 128,
    "cmp_rope": "after", "cmp_position": true, "shared_kv": false, "v_head_dim": 64
  }
})";

constexpr int64_t kVocab = 8192, kHidden = 512, kMlp = 1280, kNumLayers = 6;
constexpr int64_t kNumHeads = 16, kHeadDim = 64, kSpan = 32, kPhiHidden = 128;

struct Tensor {
  std::string name;
  std::vector<int64_t> shape;
  bool is_norm = false;  // all ones

  int64_t num_elements() const {
    int64_t product = 1;
    for (int64_t extent : shape) product *= extent;
    return product;
  }
};

void AddAttention(const std::string& layer, std::vector<Tensor>& tensors) {
  const std::string attention = absl::StrCat(layer, ".self_attn.");
  tensors.push_back({attention + "q_proj.weight", {kNumHeads * kHeadDim, kHidden}});
  tensors.push_back({attention + "o_proj.weight", {kHidden, kNumHeads * kHeadDim}});
  tensors.push_back({attention + "g_proj.weight", {kNumHeads * 3, kHidden}});
  for (const char* branch : {"cmp", "sel", "win"}) {
    for (const char* kv : {"k", "v"}) {
      tensors.push_back(
          {absl::StrCat(attention, branch, ".", kv, "_proj.weight"), {kHeadDim, kHidden}});
    }
  }
  for (const char* kv : {"k", "v"}) {
    const std::string cmp = attention + "cmp.";
    tensors.push_back({absl::StrCat(cmp, "pos_", kv), {1, kSpan, kHeadDim}});
    tensors.push_back(
        {absl::StrCat(cmp, "phi_", kv, ".fc1.weight"), {1, kPhiHidden, kSpan * kHeadDim}});
    tensors.push_back({absl::StrCat(cmp, "phi_", kv, ".fc2.weight"), {1, kHeadDim, kPhiHidden}});
  }
}

std::vector<Tensor> Tensors() {
  std::vector<Tensor> tensors = {{"model.embed_tokens.weight", {kVocab, kHidden}},
                                 {"model.norm.weight", {kHidden}, /*is_norm=*/true}};
  for (int64_t l = 0; l < kNumLayers; ++l) {
    const std::string layer = absl::StrCat("model.layers.", l);
    tensors.push_back({layer + ".input_layernorm.weight", {kHidden}, /*is_norm=*/true});
    tensors.push_back({layer + ".post_attention_layernorm.weight", {kHidden}, /*is_norm=*/true});
    tensors.push_back({layer + ".mlp.gate_proj.weight", {kMlp, kHidden}});
    tensors.push_back({layer + ".mlp.up_proj.weight", {kMlp, kHidden}});
    tensors.push_back({layer + ".mlp.down_proj.weight", {kHidden, kMlp}});
    AddAttention(layer, tensors);
  }
  return tensors;
}

// The safetensors header, padded to a multiple of 8 bytes.
std::string Header(const std::vector<Tensor>& tensors) {
  std::vector<std::string> entries;
  int64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    const int64_t end = offset + tensor.num_elements() * DTypeBytes(DType::kBF16);
    entries.push_back(absl::StrCat("\"", tensor.name, R"(":{"dtype":"BF16","shape":[)",
                                   absl::StrJoin(tensor.shape, ","), R"(],"data_offsets":[)",
                                   offset, ",", end, "]}"));
    offset = end;
  }
  std::string header = absl::StrCat("{", absl::StrJoin(entries, ","), "}");
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return header;
}

void WriteTensor(const Tensor& tensor, std::mt19937& random, std::ofstream& file) {
  std::vector<BFloat16> values(tensor.num_elements());
  for (BFloat16& value : values) {
    const float uniform = static_cast<float>(random()) * 0x1p-31F - 1;
    value = BFloat16(tensor.is_norm ? 1.0F : 0.05F * uniform);
  }
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(BFloat16)));
}

}  // namespace

absl::Status WriteRandomModel(const std::string& folder) {
  std::ofstream(folder + "/config.json") << kConfig;
  std::ofstream file(folder + "/model.safetensors", std::ios::binary);
  const std::vector<Tensor> tensors = Tensors();
  const std::string header = Header(tensors);
  const uint64_t header_bytes = header.size();
  file.write(reinterpret_cast<const char*>(&header_bytes), sizeof(header_bytes));
  file << header;
  std::mt19937 random(1);
  for (const Tensor& tensor : tensors) WriteTensor(tensor, random, file);
  file.close();
  if (file.fail()) return absl::UnavailableError("cannot write model.safetensors");
  return absl::OkStatus();
}

}  // namespace nsa::bench
