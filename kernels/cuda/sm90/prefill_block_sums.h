#pragma once
// What prefill_compressed.cu leaves for prefill_choose.cu: sums of weights by block.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/nsa.h"

namespace nsa::cuda {

// What the blocks of a token get from its heads, for the tokens of a chunk of tiles that have to
// choose. Those of KV head g of the i-th token of tile t are at
// ((t * kTileTokens + i) * num_kv_heads + g) * stride: bf16 [blocks / 4][8][4][2], where [q][h][j]
// has what block 4 q + j gets from heads h and h + 8.
struct PrefillBlockSums {
  uint4* data = nullptr;
  // [T, H] what makes probabilities of a head's sums; kNoFactor: its sums cannot be compared.
  float* factors = nullptr;
  int64_t stride = 0;
  int64_t max_tiles = 0;  // of a chunk
};
inline constexpr int kBlockSumsOfQuad = 8;  // elements of data that four blocks have
inline constexpr float kNoFactor = -1;

// In `scratch`, which has PrefillBlockSumsBytes and 16-byte alignment.
PrefillBlockSums PlacePrefillBlockSums(const SparseAttentionExtent& extent, void* scratch);
int64_t PrefillBlockSumsBytes(const SparseAttentionExtent& extent);

// Calls f(tokens of a chunk) for all chunks of a step.
template <typename F>
void ForEachChunk(TokenMap tokens, const PrefillBlockSums& block_sums, F&& f) {
  TokenMap chunk = tokens;
  const int64_t num_tiles = tokens.tiles.dim(0);
  for (int64_t begin = 0; begin < num_tiles; begin += block_sums.max_tiles) {
    chunk.tiles = tokens.tiles.Slice(begin, std::min(block_sums.max_tiles, num_tiles - begin));
    f(chunk);
  }
}

}  // namespace nsa::cuda
