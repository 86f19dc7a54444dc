// NSAForCausalLM of flash-linear-attention (model_type nsa): its own names. Mean pooling of rotated
// keys, one KV stream, span = stride = block, 1 initial and 2 local blocks forced (config.cc).

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model/registry.h"
#include "engine/model/transformer_model.h"
#include "kernels/checks.h"

namespace nsa {
namespace {

// The library builds its layers without passing head_dim on, so that a checkpoint has heads of its
// layer's default whatever the config says.
constexpr int64_t kLayerHeadDim = 64;

bool HasDefaultHeads(const ModelConfig& config, const Weights& weights) {
  const std::vector<int64_t> shape = weights.ShapeOf("model.layers.0.attn.q_proj.weight");
  return !shape.empty() && shape[0] == config.num_heads * kLayerHeadDim;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> LoadFlaNsa(ModelConfig config, const ModelOptions& options,
                                                  Weights& weights) {
  if (HasDefaultHeads(config, weights)) config.d_k = config.d_v = kLayerHeadDim;
  const int64_t max_span = kMaxSpanElements / config.d_k;
  if (config.nsa->shape.span_tokens > max_span) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: block_size is ", config.nsa->shape.span_tokens,
                     "; allowed: at most ", max_span, " with heads of ", config.d_k));
  }
  const TensorNames names{.embedding = "model.embeddings.weight",
                          .attention_norm = "attn_norm.weight",
                          .mlp_norm = "mlp_norm.weight",
                          .attention = "attn.",
                          .ignorable = {"rotary.inv_freq"}};
  return TransformerModel::Load(std::move(config), names, options, weights);
}

}  // namespace nsa
