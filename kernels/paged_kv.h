#pragma once
// How kernels find the tokens of a packed batch and the cached rows of its sequences.

#include <cstdint>

#include "base/tensor_view.h"

namespace nsa {

// The query tokens of a batch, packed one sequence after another.
// A token with position -1 is padding: kernels write 0 (lse -inf, blocks -1) for it and read
// nothing.
struct TokenMap {
  TensorView sequence;  // [num_tokens] i32, row of the tables below
  TensorView
      position;  // [num_tokens] i32, position in its sequence; all positions below it are cached

  // Where a step has both kinds, tokens [0, num_decode_tokens) are the only token of their sequence
  // and tiles cover the others: a tile is up to kTileTokens consecutive tokens of one sequence that
  // lie in one kTileTokens-aligned range of positions. Backends that do not tile ignore both.
  int64_t num_decode_tokens = 0;
  TensorView tiles;  // [num_tiles, 4] i32: sequence, first packed token, tokens, first position

  int64_t num_tokens() const { return position.dim(0); }
};
inline constexpr int64_t kTileTokens = 64;

// K and V rows of the batch's sequences in pages of equal size.
// Row r of sequence s is row r % page_rows of page table[s][(r / page_rows) % table_width].
// Three uses, one rule: tokens in pages (table_width >= pages of the longest sequence); the latest
// tokens alone, in pages whose columns are used again (table_width * page_rows rows at least as
// many as are still read); compressed rows, where row i of the model is row i +
// span_tokens/span_stride - 1 here, so that it lies in the page in which its span ends.
struct PagedKv {
  TensorView k;      // [num_pages, num_kv_heads, page_rows, d_k] f32 or bf16; on CUDA f16 too
  TensorView v;      // [num_pages, num_kv_heads, page_rows, d_v] same dtype
  TensorView table;  // [num_seqs, table_width] i32, -1 where there is no page

  int64_t num_kv_heads() const { return k.dim(1); }
  int64_t page_rows() const { return k.dim(2); }
  int64_t d_k() const { return k.dim(3); }
  int64_t d_v() const { return v.dim(3); }
};

}  // namespace nsa
