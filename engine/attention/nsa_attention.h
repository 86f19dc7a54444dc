#pragma once
// Native Sparse Attention over paged caches (docs/nsa.md).
//
// Pages: "sel" holds every token's K and V, "rows" the compressed rows whose spans end in the page.
// Slots, with separate KV per branch only: "cmp", a ring of raw rows of unfinished spans, and
// "win", a ring of the window. With shared KV, "sel" serves all three branches.

#include <memory>
#include <vector>

#include "engine/attention/attention.h"
#include "engine/attention/registry.h"
#include "engine/config.h"

namespace nsa {

class NsaAttention : public Attention {
 public:
  // The config must have sparse settings.
  NsaAttention(const ModelConfig& config, const AttentionOptions& options);
  static std::unique_ptr<Attention> Make(const ModelConfig& config,
                                         const AttentionOptions& options);

  const CacheSpec& cache_spec() const override { return cache_spec_; }
  void Forward(int64_t layer, const StepView& step, const AttentionInputs& inputs, KvCache& cache,
               Workspace& workspace, const Stream& stream) const override;
  int64_t WorkspaceBytes(const StepExtent& extent, const Stream& stream) const override;
  int64_t num_traced_blocks() const override { return num_kv_heads_ * nsa_.shape.num_selected; }
  // Each branch's reads, counted once: rows, tokens of the chosen blocks, window. Where the own
  // block is not forced (num_local 0) the chosen blocks count in full.
  KvTraffic DecodeTraffic(int64_t num_tokens) const override;

 private:
  static CacheSpec MakeCacheSpec(const ModelConfig& config, const AttentionOptions& options);
  struct Caches;  // the layer's streams, as the kernels see them
  Caches Streams(int64_t layer, const StepView& step, KvCache& cache) const;
  // What one layer's attention reads besides the caches.
  struct Queries {
    TensorView q;            // [T, H, d_k] activation dtype, rotated
    TensorView gate_logits;  // [T, H, 3] f32
  };
  Queries Append(const StepView& step, const AttentionInputs& inputs, const Caches& caches,
                 Workspace& workspace, const Stream& stream) const;
  int64_t CompressScratchBytes(const StepExtent& extent, const Stream& stream) const;
  int64_t ScratchBytes(const StepExtent& extent, const Stream& stream) const;
  void Trace(int64_t layer, const StepView& step, const TensorView& blocks,
             const Stream& stream) const;
  int64_t NumSelectedTokens(int64_t num_tokens) const;
  TensorView inv_freq() const;

  NsaConfig nsa_;
  int64_t num_heads_, num_kv_heads_, d_k_, d_v_;
  DType activation_;
  float softmax_scale_;
  CacheSpec cache_spec_;
  DeviceBuffer rope_frequencies_;  // [d_k / 2] f32
};

}  // namespace nsa
