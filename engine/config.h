#pragma once
// ModelConfig: what config.json says, checked. Format and keys: docs/checkpoint_format.md.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/nsa.h"

namespace nsa {

// Sparse settings; absent for a full-attention model.
struct NsaConfig {
  NsaShape shape;
  PhiKind phi = PhiKind::kMean;
  int64_t phi_hidden = 0;
  CmpRope cmp_rope = CmpRope::kBefore;
  bool has_position = false;
  bool shared_kv = true;
};

// RoPE frequency scaling (rope_scaling in config.json).
enum class RopeScaling : uint8_t { kNone, kLinear, kLlama3 };

struct ModelConfig {
  std::string architecture;  // architectures[0]
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0, num_layers = 0;
  int64_t num_heads = 0, num_kv_heads = 0, d_k = 0, d_v = 0;
  int64_t max_position = 0;  // longest sequence in tokens
  float rms_epsilon = 1e-5F;
  double rope_theta = 10000;
  RopeScaling rope_scaling = RopeScaling::kNone;
  double rope_factor = 1, rope_low_freq_factor = 1, rope_high_freq_factor = 4;
  int64_t rope_original_max_position = 0;
  bool tie_embeddings = false;
  std::string weights_dtype;  // torch_dtype (or dtype), for information: the tensors decide
  std::optional<int32_t> bos_token;
  std::vector<int32_t> eos_tokens;
  std::optional<NsaConfig> nsa;

  int64_t group_size() const { return num_heads / num_kv_heads; }
};

// Parses and checks the text of a config.json. INVALID_ARGUMENT names the key, the value found and
// what is allowed; UNIMPLEMENTED the same for a known but unsupported setting.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json_text);

// The RoPE frequencies of a model: d_k / 2 values, scaling applied.
std::vector<float> RopeFrequencies(const ModelConfig& config);

}  // namespace nsa
