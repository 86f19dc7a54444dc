#pragma once
// How the persistent prefill kernels cut a step into work: an item is one KV head of up to
// `item_tokens` consecutive tokens of one tile. Items of late tiles come first, since they see the
// most rows, and block b takes items b, b + grid, ...

#include <cstdint>

#include "kernels/cuda/device/fast_divide.cuh"
#include "kernels/cuda/sm90/prefill_compressed_rows.h"

namespace nsa::cuda {

struct ItemSpace {
  const int4* tiles;  // sequence, first packed token, tokens <= kTileTokens, first position
  int32_t num_tiles;
  FastDivide num_kv_heads;
  int32_t item_tokens;
  FastDivide items_per_tile;  // of one KV head
  int32_t span_tokens;
  FastDivide span_stride;
  int32_t rows_stride;  // PrefillRows

  __device__ int num_items() const {
    return num_tiles * items_per_tile.divisor() * num_kv_heads.divisor();
  }
  // C(s) of docs/nsa.md
  __device__ int NumRows(int num_tokens) const {
    return num_tokens < span_tokens ? 0 : span_stride.Quotient(num_tokens - span_tokens) + 1;
  }
};

struct Item {
  int kv_head;
  int first_token;     // packed
  int num_tokens;      // <= 0: nothing to do
  int first_position;  // in the sequence
  int first_row;       // of this sequence and head in PrefillRows

  __device__ int last_position() const { return first_position + num_tokens - 1; }
};

__device__ __forceinline__ Item GetItem(const ItemSpace& space, int item_idx) {
  const int rest = space.num_kv_heads.Quotient(item_idx);
  const int kv_head = item_idx - rest * space.num_kv_heads.divisor();
  const int tile_idx = space.items_per_tile.Quotient(rest);
  const int4 tile = space.tiles[space.num_tiles - 1 - tile_idx];
  const int items_per_tile = space.items_per_tile.divisor();
  const int skipped = (items_per_tile - 1 - (rest - tile_idx * items_per_tile)) * space.item_tokens;
  return {.kv_head = kv_head,
          .first_token = tile.y + skipped,
          .num_tokens = min(space.item_tokens, tile.z - skipped),
          .first_position = tile.w + skipped,
          .first_row = (tile.x * space.num_kv_heads.divisor() + kv_head) * space.rows_stride};
}

// A ring of buffers: which one is next and in which round it is used.
struct RingPosition {
  int idx = 0;
  uint32_t parity = 0;

  template <int kSize>
  __device__ __forceinline__ void Advance() {
    if (++idx == kSize) {
      idx = 0;
      parity ^= 1;
    }
  }
};

}  // namespace nsa::cuda
