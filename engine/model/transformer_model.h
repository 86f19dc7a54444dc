#pragma once
// TransformerModel: the body that all architectures share; they differ in names and settings only.

#include <memory>
#include <vector>

#include "engine/loader/weights.h"
#include "engine/model/layers.h"
#include "engine/model/model.h"
#include "engine/model/registry.h"

namespace nsa {

class TransformerModel : public Model {
 public:
  // Converts and packs every tensor of the model; afterwards `weights` is no longer needed.
  // INVALID_ARGUMENT: what MakeAttention or WeightStore::Finish reports, or a cache dtype that the
  // GPU cannot combine with the weights. RESOURCE_EXHAUSTED: the GPU has no room for the weights.
  static absl::StatusOr<std::unique_ptr<Model>> Load(ModelConfig config, const TensorNames& names,
                                                     const ModelOptions& options, Weights& weights);

  const ModelConfig& config() const override { return config_; }
  const Attention& attention() const override { return *attention_; }
  void Forward(const ForwardArgs& args, KvCache& cache, Workspace& workspace,
               const Stream& stream) const override;
  int64_t WorkspaceBytes(const StepExtent& extent, const Stream& stream) const override;
  int64_t weight_bytes() const override { return store_.num_bytes(); }

 private:
  // Logits of the rows that `logit_tokens` names.
  void Logits(const ForwardArgs& args, const Residual& residual, Workspace& workspace,
              const Stream& stream) const;

  // Where the model is, and the dtype between the matrices of a layer.
  struct Placement {
    Device* device = nullptr;
    DType activation = DType::kF32;
  };
  TransformerModel(ModelConfig config, const TensorNames& names, const Placement& placement,
                   std::unique_ptr<Attention> attention, Weights& weights);

  const ModelConfig config_;
  const DType activation_;
  std::unique_ptr<Attention> attention_;
  WeightStore store_;
  PackedWeight embedding_, head_;  // head_ is embedding_ where they are tied
  std::vector<TransformerLayer> layers_;
  TensorView final_norm_;  // [hidden] f32
};

}  // namespace nsa
