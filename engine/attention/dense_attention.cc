#include "engine/attention/dense_attention.h"

#include <cmath>

#include "kernels/kv_store.h"

namespace nsa {
namespace {

constexpr int64_t kSelPages = 0;     // the place of "sel" in the spec
constexpr int64_t kPageTokens = 64;  // of a model that has no blocks of its own

CacheSpec MakeSpec(const ModelConfig& config, const AttentionOptions& options) {
  const int64_t page_tokens = config.nsa ? config.nsa->shape.block_tokens : kPageTokens;
  CacheSpec spec{
      .page_tokens = page_tokens, .num_layers = config.num_layers, .dtype = options.cache_dtype};
  spec.page_segments = {{.name = "sel",
                         .num_rows = page_tokens,
                         .num_kv_heads = config.num_kv_heads,
                         .d_k = config.d_k,
                         .d_v = config.d_v}};
  return spec;
}

}  // namespace

DenseAttentionVariant::DenseAttentionVariant(const ModelConfig& config,
                                             const AttentionOptions& options)
    : num_heads_(config.num_heads),
      num_kv_heads_(config.num_kv_heads),
      d_k_(config.d_k),
      d_v_(config.d_v),
      activation_(options.activation),
      softmax_scale_(1.0F / std::sqrt(static_cast<float>(config.d_k))),
      cache_spec_(MakeSpec(config, options)),
      rope_frequencies_(RopeFrequenciesOn(config, options.device)) {}

std::unique_ptr<Attention> DenseAttentionVariant::Make(const ModelConfig& config,
                                                       const AttentionOptions& options) {
  return std::make_unique<DenseAttentionVariant>(config, options);
}

void DenseAttentionVariant::Forward(int64_t layer, const StepView& step,
                                    const AttentionInputs& inputs, KvCache& cache,
                                    Workspace& workspace, const Stream& stream) const {
  const Workspace::Scope scope(workspace);
  const TensorView inv_freq(rope_frequencies_.data(), DType::kF32, {d_k_ / 2});
  const KvCache::KvTensors sel = cache.PageTensors(layer, kSelPages);
  const PagedKv kv{.k = sel.k, .v = sel.v, .table = step.page_table};
  const TokenMap& tokens = step.tokens;

  const TensorView q = workspace.Take(activation_, {tokens.num_tokens(), num_heads_, d_k_});
  const ProjectionColumns& columns = inputs.columns;
  StoreProjections(
      {.tokens = tokens,
       .packed = inputs.packed,
       .inv_freq = inv_freq,
       .q_column = columns.q,
       .num_streams = 1,
       .streams = {KvStream{.k_column = columns.sel.k, .v_column = columns.sel.v, .kv = kv}},
       .q = q},
      stream);
  DenseAttention({.tokens = tokens,
                  .q = q,
                  .kv = kv,
                  .out = inputs.out,
                  .lse = workspace.Take(DType::kF32, {tokens.num_tokens(), num_heads_}),
                  .softmax_scale = softmax_scale_},
                 stream);
}

int64_t DenseAttentionVariant::WorkspaceBytes(const StepExtent& extent,
                                              const Stream& /*stream*/) const {
  const int64_t num_rows = extent.num_tokens * num_heads_;
  return Workspace::Rounded(num_rows * d_k_ * DTypeBytes(activation_)) +
         Workspace::Rounded(num_rows * DTypeBytes(DType::kF32));
}

KvTraffic DenseAttentionVariant::DecodeTraffic(int64_t num_tokens) const {
  const int64_t num_bytes = num_tokens * num_kv_heads_ * (d_k_ + d_v_) *
                            DTypeBytes(cache_spec_.dtype) * cache_spec_.num_layers;
  return {.read_bytes = num_bytes, .dense_bytes = num_bytes};
}

}  // namespace nsa
