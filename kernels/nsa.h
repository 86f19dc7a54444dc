#pragma once
// THE contract of the NSA operations: one args struct and one function per operation, for every
// backend. The mathematics is docs/nsa.md; section numbers below refer to it. Kernels allocate
// nothing, keep no state and never see a model name. T = tokens of the packed batch, H = query
// heads, K = KV heads, group size G = H / K; query heads [g*G, (g+1)*G) share KV head g.
// "Activation" is a dtype: f32 on the CPU; f32, bf16 or f16 on CUDA.
//
// Numerics, every backend: fp32 scores, softmax, importance and accumulation. A over an empty set
// is 0 with lse -inf. Determinism: one token's outputs depend on that token's inputs and its
// sequence's cache alone, never on the batch around it; on the CPU they are bit-identical alone,
// batched, and in any chunking of a prefill.

#include <cstdint>

#include "base/tensor_view.h"
#include "kernels/device.h"
#include "kernels/kv_store.h"
#include "kernels/nsa_shape.h"
#include "kernels/paged_kv.h"

namespace nsa {

// The function phi that turns the l raw rows of a span into one compressed row (2, Compression).
enum class PhiKind : uint8_t { kMean, kWeightedPool, kLinear, kMlp };
// Where RoPE of compressed keys happens (2, Compression): the raw keys are already rotated, the
// finished row i is rotated at position i * span_stride, or never.
enum class CmpRope : uint8_t { kBefore, kAfter, kNone };

// Weights of phi for K or for V; d is d_k or d_v. Unused views stay empty.
struct PhiWeights {
  TensorView position;  // P: [K, span_tokens, d] f32, added to the raw rows; empty = none
  TensorView weight;    // weighted_pool: [K, span_tokens] f32; linear: [K, d, span_tokens * d]
                        // activation, input flattened token-major
  TensorView fc1;       // mlp: [K, hidden, span_tokens * d] activation, input as of linear
  TensorView fc2;       // mlp: [K, d, hidden], dtype of fc1; exact GELU between the two
};

// Emits the compressed row of every token that completes a span, from raw rows that are already
// stored.
struct CompressArgs {
  NsaShape shape;
  PhiKind phi = PhiKind::kMean;
  CmpRope rope = CmpRope::kNone;
  TokenMap tokens;
  PagedKv
      raw;  // raw cmp rows: pages; of the latest span_tokens + (tokens per step) - 1 rows at least
  PagedKv rows;  // out: page_rows = shape.rows_per_page(); other rows stay as they are
  PhiWeights phi_k, phi_v;
  TensorView inv_freq;  // [d_k / 2] f32, RoPE frequencies; read with kAfter only
  TensorView scratch;   // [CompressRowsScratchBytes of a step at least this large] u8
};
void CompressRows(const CompressArgs& args, const Stream& stream);

// The largest step that scratch of CompressRows is to serve. 0 bytes: scratch may be empty.
struct CompressExtent {
  NsaShape shape;
  PhiKind phi = PhiKind::kMean;
  int64_t num_tokens = 0;
  int64_t num_seqs = 0;
  int64_t num_kv_heads = 0, d_k = 0, d_v = 0;
  int64_t num_hidden = 0;  // of phi = mlp
};
int64_t CompressRowsScratchBytes(const CompressExtent& extent, const Stream& stream);

// What a step adds to a layer's caches: StoreProjections, then CompressRows.
struct AppendArgs {
  StoreProjectionsArgs store;
  CompressArgs compress;  // of the same tokens; raw is the cache of one of the streams
};
void AppendTokens(const AppendArgs& args, const Stream& stream);
// Index of the stream whose cache is args.compress.raw; -1 if there is none.
int64_t RawStream(const AppendArgs& args);

// Attention over the visible compressed rows: row i is visible to t iff its span ends at or before
// t.
struct CompressedAttentionArgs {
  NsaShape shape;
  TokenMap tokens;
  TensorView q;  // [T, H, d_k] activation, RoPE applied
  PagedKv rows;
  TensorView out;           // out: [T, H, d_v] activation, or f32
  TensorView lse;           // out: [T, H] f32, natural log of the sum of exp(scaled scores)
  float softmax_scale = 0;  // 1 / sqrt(d_k)
};
void CompressedAttention(const CompressedAttentionArgs& args, const Stream& stream);

// Importance of every block for a token and KV head (2, Selection), then the forced blocks and the
// best others. Ties: the lower block index wins. With at most num_selected blocks in sight all are
// chosen.
struct SelectArgs {
  NsaShape shape;
  TokenMap tokens;
  TensorView q;       // [T, H, d_k] activation, RoPE applied
  PagedKv rows;       // v is not read
  TensorView lse;     // [T, H] f32, from CompressedAttention
  TensorView blocks;  // out: [T, K, num_selected] i32, ascending, -1 padded at the end
  // [rows, max blocks of a sequence] f32, contents undefined before and after. On the CPU a row per
  // thread; on CUDA any number of rows: as many tokens and KV heads are ranked at once.
  TensorView scratch;
  float softmax_scale = 0;
};
void SelectBlocks(const SelectArgs& args, const Stream& stream);

// Attention over the tokens <= t of the chosen blocks. Page size must equal block_tokens: a block
// is a page.
struct SelectedAttentionArgs {
  NsaShape shape;
  TokenMap tokens;
  TensorView q;       // [T, H, d_k] activation
  PagedKv kv;         // page_rows = shape.block_tokens
  TensorView blocks;  // [T, K, num_selected] i32, from SelectBlocks
  TensorView out;     // out: [T, H, d_v] activation, or f32
  TensorView lse;     // out: [T, H] f32
  float softmax_scale = 0;
};
void SelectedAttention(const SelectedAttentionArgs& args, const Stream& stream);

// Attention over tokens [max(0, t - window_tokens + 1), t].
struct WindowAttentionArgs {
  int64_t window_tokens = 0;
  TokenMap tokens;
  TensorView q;    // [T, H, d_k] activation
  PagedKv kv;      // pages; of the latest window_tokens + (tokens per step) - 1 rows at least
  TensorView out;  // out: [T, H, d_v] activation, or f32
  TensorView lse;  // out: [T, H] f32
  float softmax_scale = 0;
};
void WindowAttention(const WindowAttentionArgs& args, const Stream& stream);

// Full causal attention over tokens [0, t]: the baseline and the oracle of the edges (3).
struct DenseAttentionArgs {
  TokenMap tokens;
  TensorView q;    // [T, H, d_k] activation
  PagedKv kv;      // pages
  TensorView out;  // out: [T, H, d_v] activation, or f32
  TensorView lse;  // out: [T, H] f32
  float softmax_scale = 0;
};
void DenseAttention(const DenseAttentionArgs& args, const Stream& stream);

// out = sigmoid(gate_cmp) * cmp + sigmoid(gate_sel) * sel + sigmoid(gate_win) * win, per query
// head.
struct CombineArgs {
  TensorView gate_logits;    // [T, H, 3] f32, last axis cmp, sel, win
  TensorView cmp, sel, win;  // [T, H, d_v] f32
  TensorView out;            // out: [T, H, d_v] activation; may be an input of its dtype
};
void CombineBranches(const CombineArgs& args, const Stream& stream);

// A step's sparse attention from caches that are up to date: the compressed, selected and window
// branches above and their combination, in the order and with the results of the functions above.
struct SparseAttentionArgs {
  NsaShape shape;
  TokenMap tokens;
  TensorView q;            // [T, H, d_k] activation, RoPE applied
  TensorView gate_logits;  // [T, H, 3] f32, last axis cmp, sel, win
  PagedKv rows, sel, win;  // as the branches' own args have them
  TensorView out;          // out: [T, H, d_v], dtype of q
  TensorView blocks;       // out: [T, K, num_selected] i32, the choice; as SelectArgs
  TensorView scratch;      // [SparseAttentionScratchBytes of a step at least this large] u8
  float softmax_scale = 0;
};
void SparseAttention(const SparseAttentionArgs& args, const Stream& stream);

// The largest step that scratch is to serve.
struct SparseAttentionExtent {
  NsaShape shape;
  int64_t num_tokens = 0;
  int64_t num_seqs = 0;
  int64_t max_pages = 0;  // of one sequence
  int64_t num_heads = 0, num_kv_heads = 0, d_k = 0, d_v = 0;
  DType activation = DType::kF32;
  DType cache_dtype = DType::kF32;
};
// That of a call, all its tokens and the whole table.
SparseAttentionExtent ExtentOf(const SparseAttentionArgs& args);
int64_t SparseAttentionScratchBytes(const SparseAttentionExtent& extent, const Stream& stream);

}  // namespace nsa
