#pragma once
// Contiguous copies of compressed rows for the prefill kernels of Hopper: the copy engine loads
// large tiles, while a page holds the few rows of one block.

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/nsa.h"

namespace nsa::cuda {

inline constexpr int64_t kPrefillTileRows = 64;  // rows that a prefill kernel loads at once

// Which row of a tile lies at `place`. A thread of a tensor-core product has columns 2 c and 2 c +
// 1 of every 8: it gets the 16 rows from 16 c on, and so whole blocks.
__host__ __device__ constexpr int TileRowAt(int place) {
  return place / 2 % 4 * 16 + place / 8 * 2 + place % 2;
}
__host__ __device__ constexpr int PlaceInTile(int row) {
  return row % 16 / 2 * 8 + row / 16 * 2 + row % 2;
}

// The rows of the pages of KV head g of sequence s (a row of the page table) begin at row
// (s * num_kv_heads + g) * rows_stride, tiles in order, each dealt out as TileRowAt says. Rows that
// nobody sees, before the first complete one and after the last one, are zeros up to the next
// multiple of kPrefillTileRows and undefined from there on.
struct PrefillRows {
  const void* k = nullptr;  // [num_seqs * num_kv_heads * rows_stride, d_k], dtype of the cache
  const void* v = nullptr;  // [.., d_v]
  // [num_seqs * num_kv_heads] the largest squared norm of a row of K that is seen, as fp32 sums it.
  float* k_square = nullptr;
  int64_t rows_stride = 0;  // a multiple of kPrefillTileRows
  int64_t num_rows_in_all = 0;
};

// Where the copies of `rows` lie in `scratch`, which has PrefillRowsBytes and 1024-byte alignment.
PrefillRows PlacePrefillRows(const PagedKv& rows, void* scratch);
int64_t PrefillRowsBytes(const SparseAttentionExtent& extent);

// Fills `copies` with every row that a token of tokens.tiles sees. One launch per layer and step.
// Bytes: each such row is read and written once.
void LaunchGatherPrefillRows(const NsaShape& shape, const TokenMap& tokens, const PagedKv& rows,
                             const PrefillRows& copies, cudaStream_t stream);

}  // namespace nsa::cuda
