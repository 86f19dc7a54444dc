#include "bench/engine/random_model.h"

#include <algorithm>
#include <fstream>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/dtype.h"

namespace nsa::bench {
namespace {

constexpr char kConfig[] = R"({
  "architectures": ["NsaForCausalLM"],
  "vocab_size": %d, "hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": %d,
  "num_attention_heads": %d, "num_key_value_heads": %d, "head_dim": %d, "rms_norm_eps": 1e-5,
  "rope_theta": 500000, "max_position_embeddings": 262144, "tie_word_embeddings": true,
  "hidden_act": "silu", "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
  "nsa_config": {
    "span_tokens": 32, "span_stride": 16, "block_tokens": 64, "num_selected": 16,
    "num_initial": 1, "num_local": 2, "window_tokens": 512, "phi": "mlp", "phi_hidden": 128,
    "cmp_rope": "after", "cmp_position": true, "shared_kv": false, "v_head_dim": %d
  }
})";

constexpr int64_t kSpan = 32, kPhiHidden = 128;
// So many random values are made; larger tensors repeat them.
constexpr int64_t kRandomElements = 8'000'009;

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

void AddAttention(const RandomModelShape& shape, const std::string& layer,
                  std::vector<Tensor>& tensors) {
  const std::string attention = absl::StrCat(layer, ".self_attn.");
  const int64_t q_width = shape.num_heads * shape.head_dim, d = shape.head_dim;
  const int64_t num_kv_heads = shape.num_kv_heads;
  tensors.push_back({attention + "q_proj.weight", {q_width, shape.hidden}});
  tensors.push_back({attention + "o_proj.weight", {shape.hidden, q_width}});
  tensors.push_back({attention + "g_proj.weight", {shape.num_heads * 3, shape.hidden}});
  for (const char* branch : {"cmp", "sel", "win"}) {
    for (const char* kv : {"k", "v"}) {
      tensors.push_back({absl::StrCat(attention, branch, ".", kv, "_proj.weight"),
                         {num_kv_heads * d, shape.hidden}});
    }
  }
  for (const char* kv : {"k", "v"}) {
    const std::string cmp = attention + "cmp.";
    tensors.push_back({absl::StrCat(cmp, "pos_", kv), {num_kv_heads, kSpan, d}});
    tensors.push_back(
        {absl::StrCat(cmp, "phi_", kv, ".fc1.weight"), {num_kv_heads, kPhiHidden, kSpan * d}});
    tensors.push_back(
        {absl::StrCat(cmp, "phi_", kv, ".fc2.weight"), {num_kv_heads, d, kPhiHidden}});
  }
}

std::vector<Tensor> Tensors(const RandomModelShape& shape) {
  const int64_t hidden = shape.hidden, mlp = shape.mlp;
  std::vector<Tensor> tensors = {{"model.embed_tokens.weight", {shape.vocab, hidden}},
                                 {"model.norm.weight", {hidden}, /*is_norm=*/true}};
  for (int64_t l = 0; l < shape.num_layers; ++l) {
    const std::string layer = absl::StrCat("model.layers.", l);
    tensors.push_back({layer + ".input_layernorm.weight", {hidden}, /*is_norm=*/true});
    tensors.push_back({layer + ".post_attention_layernorm.weight", {hidden}, /*is_norm=*/true});
    tensors.push_back({layer + ".mlp.gate_proj.weight", {mlp, hidden}});
    tensors.push_back({layer + ".mlp.up_proj.weight", {mlp, hidden}});
    tensors.push_back({layer + ".mlp.down_proj.weight", {hidden, mlp}});
    AddAttention(shape, layer, tensors);
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

void Write(const BFloat16* values, int64_t num_values, std::ofstream& file) {
  file.write(reinterpret_cast<const char*>(values),
             static_cast<std::streamsize>(num_values * static_cast<int64_t>(sizeof(BFloat16))));
}

void WriteTensor(const Tensor& tensor, const std::vector<BFloat16>& random, std::ofstream& file) {
  if (tensor.is_norm) {
    const std::vector<BFloat16> ones(tensor.num_elements(), BFloat16(1.0F));
    return Write(ones.data(), tensor.num_elements(), file);
  }
  for (int64_t left = tensor.num_elements(); left > 0; left -= kRandomElements) {
    Write(random.data(), std::min(left, kRandomElements), file);
  }
}

}  // namespace

absl::Status WriteRandomModel(const RandomModelShape& shape, const std::string& folder) {
  std::ofstream(folder + "/config.json")
      << absl::StrFormat(kConfig, shape.vocab, shape.hidden, shape.mlp, shape.num_layers,
                         shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.head_dim);
  std::ofstream file(folder + "/model.safetensors", std::ios::binary);
  const std::vector<Tensor> tensors = Tensors(shape);
  const std::string header = Header(tensors);
  const uint64_t header_bytes = header.size();
  file.write(reinterpret_cast<const char*>(&header_bytes), sizeof(header_bytes));
  file << header;
  std::mt19937 random(1);
  std::vector<BFloat16> values(kRandomElements);
  for (BFloat16& value : values) {
    value = BFloat16(0.05F * (static_cast<float>(random()) * 0x1p-31F - 1));
  }
  for (const Tensor& tensor : tensors) WriteTensor(tensor, values, file);
  file.close();
  if (file.fail()) return absl::UnavailableError("cannot write model.safetensors");
  return absl::OkStatus();
}

}  // namespace nsa::bench
