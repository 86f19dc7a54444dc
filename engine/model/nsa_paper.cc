// NsaForCausalLM: this project's own checkpoints, any setting of nsa_config. Llama's names, with K
// and V per branch under self_attn.{cmp,sel,win} unless they are shared
// (docs/checkpoint_format.md).

#include <utility>

#include "engine/model/registry.h"
#include "engine/model/transformer_model.h"

namespace nsa {

absl::StatusOr<std::unique_ptr<Model>> LoadNsaPaper(ModelConfig config, const ModelOptions& options,
                                                    Weights& weights) {
  return TransformerModel::Load(std::move(config), TensorNames{}, options, weights);
}

}  // namespace nsa
