#pragma once
// Full causal attention: what Llama computes, and `--attention=full` over a sparse model's caches,
// of which it stores and reads "sel" only. Gates, where the model has them, are left out.

#include <memory>
#include <vector>

#include "engine/attention/attention.h"
#include "engine/attention/registry.h"
#include "engine/config.h"

namespace nsa {

class DenseAttentionVariant : public Attention {
 public:
  DenseAttentionVariant(const ModelConfig& config, const AttentionOptions& options);
  static std::unique_ptr<Attention> Make(const ModelConfig& config,
                                         const AttentionOptions& options);

  const CacheSpec& cache_spec() const override { return cache_spec_; }
  void Forward(int64_t layer, const StepView& step, const AttentionInputs& inputs, KvCache& cache,
               Workspace& workspace, const Stream& stream) const override;
  int64_t WorkspaceBytes(const StepExtent& extent, const Stream& stream) const override;
  KvTraffic DecodeTraffic(int64_t num_tokens) const override;

 private:
  int64_t num_heads_, num_kv_heads_, d_k_, d_v_;
  DType activation_;
  float softmax_scale_;
  CacheSpec cache_spec_;
  DeviceBuffer rope_frequencies_;  // [d_k / 2] f32
};

}  // namespace nsa
