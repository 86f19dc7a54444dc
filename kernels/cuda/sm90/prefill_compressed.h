#pragma once
// CompressedAttention of a step's tiles on Hopper, in two passes (prefill_lse.cu and
// prefill_compressed.cu say how).

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/sm90/prefill_compressed_rows.h"
#include "kernels/nsa.h"

namespace nsa::cuda {

// Importances of blocks, for the tokens of a chunk of tiles that have to choose: those of KV head g
// of the i-th token of tile t are at ((t * kTileTokens + i) * num_kv_heads + g) * stride.
struct PrefillImportance {
  float* data = nullptr;
  int64_t stride = 0;     // a multiple of 128
  int64_t max_tiles = 0;  // of a chunk
};

// In `scratch`, which has PrefillImportanceBytes and 16-byte alignment.
PrefillImportance PlacePrefillImportance(const SparseAttentionExtent& extent, void* scratch);
int64_t PrefillImportanceBytes(const SparseAttentionExtent& extent);

// Calls f(tokens of a chunk) for all chunks of a step.
template <typename F>
void ForEachChunk(TokenMap tokens, const PrefillImportance& importance, F&& f) {
  TokenMap chunk = tokens;
  const int64_t num_tiles = tokens.tiles.dim(0);
  for (int64_t begin = 0; begin < num_tiles; begin += importance.max_tiles) {
    chunk.tiles = tokens.tiles.Slice(begin, std::min(importance.max_tiles, num_tiles - begin));
    f(chunk);
  }
}

// True if the kernels are built for these operands: q, out and rows of one 16-bit type, head dims
// 64/64, 128/128 or 192/128, group size 16, and pages of one row, or of 4 rows with spans of 1 or 2
// strides.
bool CanPrefillCompressed(const CompressedAttentionArgs& args);

// Fills args.lse of the tokens that args.tokens.tiles cover; that of others stays as it is.
// args.rows is not read: `rows` holds the step's rows (LaunchGatherPrefillRows). A token's bits do
// not depend on the batch, on how a prefill is cut into steps, or on `num_sms`, the multiprocessors
// to use.
void LaunchPrefillLse(const CompressedAttentionArgs& args, const PrefillRows& rows, int num_sms,
                      cudaStream_t stream);

// The same for args.out, from args.lse, of one chunk of tiles, and for its importances.
void LaunchPrefillCompressed(const CompressedAttentionArgs& args, const PrefillRows& rows,
                             const PrefillImportance& importance, int num_sms, cudaStream_t stream);

}  // namespace nsa::cuda
