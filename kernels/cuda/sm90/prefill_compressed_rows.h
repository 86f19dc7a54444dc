#pragma once
// Contiguous copies of compressed rows for the prefill kernels of Hopper: the copy engine loads
// large tiles, while a page holds the few rows of one block.

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/nsa.h"

namespace nsa::cuda {

inline constexpr int64_t kPrefillTileRows = 128;  // what copies are padded to

// Row i of the pages of KV head g of sequence s (a row of the page table) is row
// (s * num_kv_heads + g) * rows_stride + i. Rows that nobody sees, before the first complete one
// and after the last one, are zeros up to the next multiple of kPrefillTileRows and undefined from
// there on.
struct PrefillRows {
  const void* k = nullptr;  // [num_seqs * num_kv_heads * rows_stride, d_k], dtype of the cache
  const void* v = nullptr;  // [.., d_v]
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
