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

// The residual stream between two layers. What a branch has computed is added by the norm that
// follows it, in one pass.
struct Residual {
  TensorView x;       // [T, hidden] f32, without the last branch
  TensorView branch;  // [T, hidden] activation dtype, the last branch's output: the layer's MLP
};

class TransformerLayer {
 public:
  // Takes the layer's tensors from `store`, which must outlive the layer.
  TransformerLayer(const ModelConfig& config, const TensorNames& names, int64_t layer,
                   WeightStore& store);

  // In place. Layer 0 finds a residual without a branch and does not read residual.branch.
  void Forward(const Attention& attention, const StepView& step, const Residual& residual,
               KvCache& cache, Workspace& workspace, const Stream& stream) const;
  // Scratch that Forward takes besides the attention's own.
  static int64_t WorkspaceBytes(const ModelConfig& config, DType activation, int64_t num_tokens);

 private:
  void TakePhi(const std::string& prefix, WeightStore& store);
  void Attend(const Attention& attention, const StepView& step, const Residual& residual,
              KvCache& cache, Workspace& workspace, const Stream& stream) const;
  void Mlp(const Residual& residual, Workspace& workspace, const Stream& stream) const;

  const ModelConfig& config_;
  int64_t layer_;
  ProjectionColumns columns_;
  TensorView attention_norm_, mlp_norm_;  // [hidden] f32
  PackedWeight qkv_gates_, o_, gate_up_, down_;
  PhiWeights phi_k_, phi_v_;
};

}  // namespace nsa
