#pragma once
// How prefill_compressed.cu cuts a step into work: an item is one KV head of up to
// `item_tokens` consecutive tokens of one tile. Items of late tiles come first, since they see the
// most rows, and block b takes items b, b + grid, ...

#include <cstdint>

#include "kernels/cuda/device/fast_divide.cuh"
#include "kernels/cuda/sm90/prefill_compressed_rows.h"
#include "kernels/cuda/sm90/prefill_limits.h"

namespace nsa::cuda {

struct Item;

inline constexpr int kColumns = 64;    // of a swizzled slice of Q, K or V: rows of 128 bytes
inline constexpr int kRowBytes = 128;  // of a slice

struct ItemSpace {
  const int4* tiles;  // sequence, first packed token, tokens <= kTileTokens, first position
  int32_t num_tiles;
  FastDivide num_kv_heads;
  int32_t item_tokens;
  FastDivide items_per_tile;  // of one KV head
  int32_t span_tokens;
  FastDivide span_stride;
  int32_t first_row;    // row_offset of NsaShape
  int32_t rows_stride;  // PrefillRows

  __device__ int num_items() const {
    return num_tiles * items_per_tile.divisor() * num_kv_heads.divisor();
  }
  // Tiles of `tile_rows` rows that an item sees.
  __device__ int NumTiles(const Item& item, int tile_rows) const;
  // The first `num_tokens` tokens complete the rows [first_row, EndRow) of their sequence.
  __device__ int EndRow(int num_tokens) const {
    return num_tokens < span_tokens
               ? 0
               : first_row + span_stride.Quotient(num_tokens - span_tokens) + 1;
  }
};

inline ItemSpace MakeItemSpace(const CompressedAttentionArgs& args, const PrefillRows& rows,
                               int item_tokens) {
  return {.tiles = static_cast<const int4*>(args.tokens.tiles.raw()),
          .num_tiles = static_cast<int32_t>(args.tokens.tiles.dim(0)),
          .num_kv_heads = FastDivide(static_cast<int32_t>(args.rows.num_kv_heads())),
          .item_tokens = item_tokens,
          .items_per_tile = FastDivide(static_cast<int32_t>(kTileTokens / item_tokens)),
          .span_tokens = static_cast<int32_t>(args.shape.span_tokens),
          .span_stride = FastDivide(static_cast<int32_t>(args.shape.span_stride)),
          .first_row = static_cast<int32_t>(args.shape.row_offset()),
          .rows_stride = static_cast<int32_t>(rows.rows_stride)};
}

struct Item {
  int kv_head;
  int first_token;     // packed
  int num_tokens;      // <= 0: nothing to do
  int first_position;  // in the sequence
  int first_row;       // of this sequence and head in PrefillRows
  int place;           // of its first token among those of all tiles, kTileTokens each

  __device__ int last_position() const { return first_position + num_tokens - 1; }
};

__device__ __forceinline__ int ItemSpace::NumTiles(const Item& item, int tile_rows) const {
  return (EndRow(item.last_position() + 1) + tile_rows - 1) / tile_rows;
}

__device__ __forceinline__ Item GetItem(const ItemSpace& space, int item_idx) {
  const int rest = space.num_kv_heads.Quotient(item_idx);
  const int kv_head = item_idx - rest * space.num_kv_heads.divisor();
  const int tiles_after = space.items_per_tile.Quotient(rest);
  const int tile_idx = space.num_tiles - 1 - tiles_after;
  const int4 tile = space.tiles[tile_idx];
  const int items_per_tile = space.items_per_tile.divisor();
  const int skipped =
      (items_per_tile - 1 - (rest - tiles_after * items_per_tile)) * space.item_tokens;
  return {.kv_head = kv_head,
          .first_token = tile.y + skipped,
          .num_tokens = min(space.item_tokens, tile.z - skipped),
          .first_position = tile.w + skipped,
          .first_row = (tile.x * space.num_kv_heads.divisor() + kv_head) * space.rows_stride,
          .place = tile_idx * static_cast<int>(kTileTokens) + skipped};
}

}  // namespace nsa::cuda
