// LlamaNSAForCausalLM: Llama's names plus self_attn.g_proj. Mean pooling of rotated keys, one KV
// stream, span = stride = block, only the query's own block forced (config.cc sets all of it).
//
// The public NSA-1B was trained with a top-k kernel that merges partially sorted candidates and at
// its shape (block 16, n 16) can miss one of the best blocks. Here the choice is exact, so logits
// differ slightly from those of its training code wherever that kernel missed.

#include <utility>

#include "engine/model/registry.h"
#include "engine/model/transformer_model.h"

namespace nsa {

absl::StatusOr<std::unique_ptr<Model>> LoadLlamaNsa(ModelConfig config, const ModelOptions& options,
                                                    Weights& weights) {
  const TensorNames names{.ignorable = {"rotary_emb.inv_freq"}};
  return TransformerModel::Load(std::move(config), names, options, weights);
}

}  // namespace nsa
