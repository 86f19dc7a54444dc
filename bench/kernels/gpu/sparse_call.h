#pragma once
// Plain structs that cross the C functions of capi*.cc, and what they stand for.
// nsa_capi.py has the same fields in the same order. Pointers are device memory.

#include <cmath>
#include <cstdint>

#include "kernels/nsa.h"

namespace nsa {

// One cache of PagedKv: k [num_pages, heads, page_rows, d_k], v likewise, table [num_seqs, width].
struct CachePointers {
  void* k;
  void* v;
  void* table;
  int64_t num_pages, page_rows, table_width;
};

struct SparseCall {
  void* q;
  void* gates;
  void* out;
  void* blocks;
  void* sequence;
  void* position;
  void* scratch;
  CachePointers rows, sel, win;
  int64_t num_tokens, num_seqs, num_heads, num_kv_heads, d_k, d_v;
  int64_t span_tokens, span_stride, block_tokens, num_selected, num_initial, num_local, window;
  int64_t is_half, scratch_bytes;
};

inline DType CallDType(const SparseCall& c) { return c.is_half != 0 ? DType::kF16 : DType::kBF16; }

inline PagedKv PagedOf(const SparseCall& c, const CachePointers& cache) {
  const DType dtype = CallDType(c);
  return {.k = {cache.k, dtype, {cache.num_pages, c.num_kv_heads, cache.page_rows, c.d_k}},
          .v = {cache.v, dtype, {cache.num_pages, c.num_kv_heads, cache.page_rows, c.d_v}},
          .table = {cache.table, DType::kI32, {c.num_seqs, cache.table_width}}};
}

// The call's operands; no decode tokens and no tiles.
inline SparseAttentionArgs ArgsOf(const SparseCall& c) {
  const DType dtype = CallDType(c);
  return {.shape = {.span_tokens = c.span_tokens,
                    .span_stride = c.span_stride,
                    .block_tokens = c.block_tokens,
                    .num_selected = c.num_selected,
                    .num_initial = c.num_initial,
                    .num_local = c.num_local,
                    .window_tokens = c.window},
          .tokens = {.sequence = {c.sequence, DType::kI32, {c.num_tokens}},
                     .position = {c.position, DType::kI32, {c.num_tokens}}},
          .q = {c.q, dtype, {c.num_tokens, c.num_heads, c.d_k}},
          .gate_logits = {c.gates, DType::kF32, {c.num_tokens, c.num_heads, 3}},
          .rows = PagedOf(c, c.rows),
          .sel = PagedOf(c, c.sel),
          .win = PagedOf(c, c.win),
          .out = {c.out, dtype, {c.num_tokens, c.num_heads, c.d_v}},
          .blocks = {c.blocks, DType::kI32, {c.num_tokens, c.num_kv_heads, c.num_selected}},
          .scratch = {c.scratch, DType::kU8, {c.scratch_bytes}},
          .softmax_scale = 1.0F / std::sqrt(static_cast<float>(c.d_k))};
}

struct PrefillCall {
  SparseCall sparse;
  void* tiles;    // [num_tiles, 4] i32
  void* cmp;      // [T, H, d_v], the compressed branch, where stages run by themselves
  void* cmp_lse;  // [T, H] f32, likewise
  int64_t num_tiles;
};

inline SparseAttentionArgs ArgsOf(const PrefillCall& call) {
  SparseAttentionArgs args = ArgsOf(call.sparse);
  args.tokens.tiles = {call.tiles, DType::kI32, {call.num_tiles, 4}};
  return args;
}

}  // namespace nsa
