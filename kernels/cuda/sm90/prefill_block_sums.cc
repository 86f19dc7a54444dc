#include "kernels/cuda/sm90/prefill_block_sums.h"

#include <cstddef>

#include "kernels/cuda/sm90/prefill_compressed_rows.h"

namespace nsa::cuda {
namespace {

int64_t BlockSumsStride(const SparseAttentionExtent& extent) {
  const int64_t tile_blocks = kPrefillTileRows / extent.shape.rows_per_page();
  return (extent.max_pages + tile_blocks - 1) / tile_blocks * (tile_blocks / 4) * kBlockSumsOfQuad;
}
int64_t BlockSumsTileBytes(const SparseAttentionExtent& extent) {
  return kTileTokens * extent.num_kv_heads * BlockSumsStride(extent) *
         static_cast<int64_t>(sizeof(uint4));
}

// Of as many tiles as there are, up to kMaxBytes: every launch for fewer than a step's ends with
// idle multiprocessors, and 8,192 tokens after 64k need 1 GiB. It grows with the extent, as scratch
// is taken once for the largest step; so it is not rounded to whole tiles.
int64_t BlockSumsBytes(const SparseAttentionExtent& extent) {
  constexpr int64_t kMaxBytes = int64_t{4} << 30;
  const int64_t tile_bytes = BlockSumsTileBytes(extent);
  // A sequence's tokens fill tiles but for its first and last.
  const int64_t num_tiles =
      std::min(extent.num_tokens, extent.num_tokens / kTileTokens + 2 * extent.num_seqs);
  return std::min(std::max<int64_t>(num_tiles, 1) * tile_bytes, std::max(kMaxBytes, tile_bytes));
}

}  // namespace

PrefillBlockSums PlacePrefillBlockSums(const SparseAttentionExtent& extent, void* scratch) {
  const int64_t sums_bytes = BlockSumsBytes(extent);
  auto* memory = static_cast<std::byte*>(scratch);
  return {.data = reinterpret_cast<uint4*>(memory),
          .factors = reinterpret_cast<float*>(memory + sums_bytes),
          .stride = BlockSumsStride(extent),
          .max_tiles = sums_bytes / BlockSumsTileBytes(extent)};
}

int64_t PrefillBlockSumsBytes(const SparseAttentionExtent& extent) {
  return BlockSumsBytes(extent) +
         extent.num_tokens * extent.num_heads * static_cast<int64_t>(sizeof(float));
}

}  // namespace nsa::cuda
