#pragma once
// One layer of a Llama-shaped decoder: projections, attention, MLP.

#include <string>
#include <vector>

#include "engine/attention/attention.h"
#include "engine/config.h"
#include "engine/model/weight_store.h"
#include "kernels/transformer.h"

namespace nsa {

// What a family calls its tensors. Names of a layer's own follow "<layers>N.".
struct TensorNames {
  std::string embedding = "model.embed_tokens.weight";
  std::string layers = "model.layers.";
  std::string attention_norm = "input_layernorm.weight";
  std::string mlp_norm = "post_attention_layernorm.weight";
  std::string attention = "self_attn.";  // + q_proj.weight and so on
  std::string mlp = "mlp.";              // + gate_proj.weight and so on
  std::string final_norm = "model.norm.weight";
  std::string head = "lm_head.weight";
  std::vector<std::string> ignorable;  // endings of names that may be left over
};

// Where each projection of the packed q|k|v|gates matrix begins, in output columns.
struct ProjectionColumns {
  struct Kv {
    int64_t k = 0, v = 0;
  };
  int64_t q = 0;
  Kv sel, cmp, win;  // cmp and win: separate KV only
  int64_t gates = 0;
  int64_t num_columns = 0;
};

class TransformerLayer {
 public:
  // Takes the layer's tensors from `store`, which must outlive the layer.
  TransformerLayer(const ModelConfig& config, const TensorNames& names, int64_t layer,
                   WeightStore& store);

  // x [T, hidden] f32, in place.
  void Forward(const Attention& attention, const StepView& step, const TensorView& x,
               KvCache& cache, Workspace& workspace, const Stream& stream) const;
  // Scratch that Forward takes besides the attention's own.
  static int64_t WorkspaceBytes(const ModelConfig& config, int64_t num_tokens);

 private:
  void TakePhi(const std::string& prefix, WeightStore& store);
  AttentionInputs Project(const TensorView& normed, Workspace& workspace,
                          const Stream& stream) const;
  void Attend(const Attention& attention, const StepView& step, const TensorView& x, KvCache& cache,
              Workspace& workspace, const Stream& stream) const;
  void Mlp(const TensorView& x, Workspace& workspace, const Stream& stream) const;

  const ModelConfig& config_;
  int64_t layer_;
  ProjectionColumns columns_;
  TensorView attention_norm_, mlp_norm_;  // [hidden] f32
  PackedWeight qkv_gates_, o_, gate_up_, down_;
  PhiWeights phi_k_, phi_v_;
};

}  // namespace nsa
