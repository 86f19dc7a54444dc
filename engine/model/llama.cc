// LlamaForCausalLM: full attention, the names that every family below starts from.

#include <utility>

#include "engine/model/registry.h"
#include "engine/model/transformer_model.h"

namespace nsa {

absl::StatusOr<std::unique_ptr<Model>> LoadLlama(ModelConfig config, const ModelOptions& options,
                                                 Weights& weights) {
  const TensorNames names{.ignorable = {"rotary_emb.inv_freq"}};
  return TransformerModel::Load(std::move(config), names, options, weights);
}

}  // namespace nsa
