#include "engine/attention/nsa_attention.h"

#include <algorithm>
#include <cmath>

#include "kernels/kv_store.h"
#include "kernels/transformer.h"

namespace nsa {
namespace {

// Places in CacheSpec::page_segments and recent_segments.
constexpr int64_t kSelPages = 0;
constexpr int64_t kRowPages = 1;
constexpr int64_t kCmpPages = 0;
constexpr int64_t kWinPages = 1;

PagedKv Paged(const KvCache::KvTensors& tensors, const TensorView& table) {
  return {.k = tensors.k, .v = tensors.v, .table = table};
}

StepExtent ExtentOf(const StepView& step) {
  return {.num_tokens = step.tokens.num_tokens(),
          .num_seqs = step.page_table.dim(0),
          .max_pages = step.max_pages};
}

}  // namespace

struct NsaAttention::Caches {
  PagedKv sel, rows;
  PagedKv raw;  // what compression reads: the cmp pages, or sel with shared KV
  PagedKv win;  // the win pages, or sel with shared KV
};

NsaAttention::NsaAttention(const ModelConfig& config, const AttentionOptions& options)
    : nsa_(*config.nsa),
      num_heads_(config.num_heads),
      num_kv_heads_(config.num_kv_heads),
      d_k_(config.d_k),
      d_v_(config.d_v),
      activation_(options.activation),
      softmax_scale_(1.0F / std::sqrt(static_cast<float>(config.d_k))),
      cache_spec_(MakeCacheSpec(config, options)),
      rope_frequencies_(RopeFrequenciesOn(config, options.device)) {
  NSA_CHECK(!nsa_.shared_kv || nsa_.cmp_rope == CmpRope::kBefore)
      << "a shared stream holds rotated keys only";
}

std::unique_ptr<Attention> NsaAttention::Make(const ModelConfig& config,
                                              const AttentionOptions& options) {
  return std::make_unique<NsaAttention>(config, options);
}

CacheSpec NsaAttention::MakeCacheSpec(const ModelConfig& config, const AttentionOptions& options) {
  const NsaShape& shape = config.nsa->shape;
  const auto segment = [&](const char* name, int64_t num_rows) {
    return KvSegment{.name = name,
                     .num_rows = num_rows,
                     .num_kv_heads = config.num_kv_heads,
                     .d_k = config.d_k,
                     .d_v = config.d_v};
  };
  CacheSpec spec{.page_tokens = shape.block_tokens,
                 .num_layers = config.num_layers,
                 .dtype = options.cache_dtype};
  spec.page_segments = {segment("sel", shape.block_tokens), segment("rows", shape.rows_per_page())};
  if (config.nsa->shared_kv) return spec;
  // A token's window and the span that it completes include the token itself.
  spec.lookback_tokens = std::max(shape.span_tokens, shape.window_tokens) - 1;
  spec.recent_segments = {segment("cmp", shape.block_tokens), segment("win", shape.block_tokens)};
  return spec;
}

NsaAttention::Caches NsaAttention::Streams(int64_t layer, const StepView& step,
                                           KvCache& cache) const {
  Caches caches;
  caches.sel = Paged(cache.PageTensors(layer, kSelPages), step.page_table);
  caches.rows = Paged(cache.PageTensors(layer, kRowPages), step.page_table);
  if (nsa_.shared_kv) {
    caches.raw = caches.sel;
    caches.win = caches.sel;
  } else {
    caches.raw = Paged(cache.RecentTensors(layer, kCmpPages), step.recent_table);
    caches.win = Paged(cache.RecentTensors(layer, kWinPages), step.recent_table);
  }
  return caches;
}

TensorView NsaAttention::inv_freq() const {
  return {rope_frequencies_.data(), DType::kF32, {d_k_ / 2}};
}

NsaAttention::Queries NsaAttention::Append(const StepView& step, const AttentionInputs& inputs,
                                           const Caches& caches, Workspace& workspace,
                                           const Stream& stream) const {
  const int64_t num_tokens = step.tokens.num_tokens();
  const ProjectionColumns& columns = inputs.columns;
  const Queries queries{.q = workspace.Take(activation_, {num_tokens, num_heads_, d_k_}),
                        .gate_logits = workspace.Take(DType::kF32, {num_tokens, num_heads_, 3})};
  const Workspace::Scope scope(workspace);
  const int64_t scratch_bytes = CompressScratchBytes(ExtentOf(step), stream);
  AppendArgs args{.store = {.tokens = step.tokens,
                            .packed = inputs.packed,
                            .inv_freq = inv_freq(),
                            .q_column = columns.q,
                            .gates_column = columns.gates,
                            .q = queries.q,
                            .gate_logits = queries.gate_logits},
                  .compress = {.shape = nsa_.shape,
                               .phi = nsa_.phi,
                               .rope = nsa_.cmp_rope,
                               .tokens = step.tokens,
                               .raw = caches.raw,
                               .rows = caches.rows,
                               .phi_k = *inputs.phi_k,
                               .phi_v = *inputs.phi_v,
                               .inv_freq = inv_freq(),
                               .scratch = workspace.Take(DType::kU8, {scratch_bytes})}};
  const auto add = [&](const ProjectionColumns::Kv& kv, bool rotate_k, const PagedKv& to) {
    args.store.streams[args.store.num_streams++] = {
        .k_column = kv.k, .v_column = kv.v, .rotate_k = rotate_k, .kv = to};
  };
  add(columns.sel, /*rotate_k=*/true, caches.sel);
  if (!nsa_.shared_kv) {
    add(columns.win, /*rotate_k=*/true, caches.win);
    add(columns.cmp, /*rotate_k=*/nsa_.cmp_rope == CmpRope::kBefore, caches.raw);
  }
  AppendTokens(args, stream);
  return queries;
}

void NsaAttention::Forward(int64_t layer, const StepView& step, const AttentionInputs& inputs,
                           KvCache& cache, Workspace& workspace, const Stream& stream) const {
  const Workspace::Scope scope(workspace);
  const int64_t num_tokens = step.tokens.num_tokens();
  const Caches caches = Streams(layer, step, cache);
  const Queries queries = Append(step, inputs, caches, workspace, stream);

  const TensorView blocks =
      workspace.Take(DType::kI32, {num_tokens, num_kv_heads_, nsa_.shape.num_selected});
  SparseAttention({.shape = nsa_.shape,
                   .tokens = step.tokens,
                   .q = queries.q,
                   .gate_logits = queries.gate_logits,
                   .rows = caches.rows,
                   .sel = caches.sel,
                   .win = caches.win,
                   .out = inputs.out,
                   .blocks = blocks,
                   .scratch = workspace.Take(DType::kU8, {ScratchBytes(ExtentOf(step), stream)}),
                   .softmax_scale = softmax_scale_},
                  stream);
  if (!step.traced_tokens.empty()) Trace(layer, step, blocks, stream);
}

void NsaAttention::Trace(int64_t layer, const StepView& step, const TensorView& blocks,
                         const Stream& stream) const {
  // GatherRows copies elements as they are, so that indices pass as floats of the same size.
  const auto as_rows = [&](const TensorView& view, int64_t num_rows) {
    return TensorView(view.raw(), DType::kF32, {num_rows, num_traced_blocks()});
  };
  const TensorView layer_blocks = step.traced_blocks.Slice(layer, 1);
  GatherRows({.x = as_rows(blocks, blocks.dim(0)),
              .indices = step.traced_tokens,
              .out = as_rows(layer_blocks, step.traced_tokens.dim(0))},
             stream);
}

int64_t NsaAttention::CompressScratchBytes(const StepExtent& extent, const Stream& stream) const {
  return CompressRowsScratchBytes({.shape = nsa_.shape,
                                   .phi = nsa_.phi,
                                   .num_tokens = extent.num_tokens,
                                   .num_seqs = extent.num_seqs,
                                   .num_kv_heads = num_kv_heads_,
                                   .d_k = d_k_,
                                   .d_v = d_v_,
                                   .num_hidden = nsa_.phi_hidden},
                                  stream);
}

int64_t NsaAttention::ScratchBytes(const StepExtent& extent, const Stream& stream) const {
  return SparseAttentionScratchBytes({.shape = nsa_.shape,
                                      .num_tokens = extent.num_tokens,
                                      .num_seqs = extent.num_seqs,
                                      .max_pages = extent.max_pages,
                                      .num_heads = num_heads_,
                                      .num_kv_heads = num_kv_heads_,
                                      .d_k = d_k_,
                                      .d_v = d_v_,
                                      .activation = activation_,
                                      .cache_dtype = cache_spec_.dtype},
                                     stream);
}

int64_t NsaAttention::WorkspaceBytes(const StepExtent& extent, const Stream& stream) const {
  const auto bytes = [&](int64_t per_token, DType dtype) {
    return Workspace::Rounded(extent.num_tokens * per_token * DTypeBytes(dtype));
  };
  return bytes(num_heads_ * d_k_, activation_) + bytes(num_heads_ * 3, DType::kF32) +
         bytes(num_kv_heads_ * nsa_.shape.num_selected, DType::kI32) +
         std::max(Workspace::Rounded(CompressScratchBytes(extent, stream)),
                  Workspace::Rounded(ScratchBytes(extent, stream)));
}

int64_t NsaAttention::NumSelectedTokens(int64_t num_tokens) const {
  const int64_t own_block = (num_tokens - 1) / nsa_.shape.block_tokens;
  const int64_t num_blocks = std::min(nsa_.shape.num_selected, own_block + 1);
  const bool has_own = nsa_.shape.num_local > 0 || num_blocks == own_block + 1;
  const int64_t unseen = (own_block + 1) * nsa_.shape.block_tokens - num_tokens;
  return num_blocks * nsa_.shape.block_tokens - (has_own ? unseen : 0);
}

KvTraffic NsaAttention::DecodeTraffic(int64_t num_tokens) const {
  const int64_t row_bytes =
      num_kv_heads_ * (d_k_ + d_v_) * DTypeBytes(cache_spec_.dtype) * cache_spec_.num_layers;
  const int64_t num_read = nsa_.shape.NumRows(num_tokens) + NumSelectedTokens(num_tokens) +
                           std::min(num_tokens, nsa_.shape.window_tokens);
  const int64_t num_visible = (num_tokens - 1) / nsa_.shape.block_tokens + 1;
  return {.read_bytes = num_read * row_bytes,
          .dense_bytes = num_tokens * row_bytes,
          .chosen_blocks = std::min(nsa_.shape.num_selected, num_visible),
          .visible_blocks = num_visible};
}

}  // namespace nsa
