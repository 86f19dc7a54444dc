#pragma once
// What a thread block of the fused decode kernel works on: the launch's parameters, the plan of its
// shared memory, and which tiles are its own.

#include <cstdint>

#include "kernels/cuda/sm90/fused_decode.h"
#include "kernels/cuda/sm90/fused_decode_choice.cuh"
#include "kernels/cuda/sm90/fused_decode_tile.cuh"

namespace nsa::cuda::fused_decode {

inline constexpr int kMaxStages = 6;  // tiles on their way to a block
inline constexpr int kLeafBits = 4;
inline constexpr int kLeaves = 1 << kLeafBits;  // and the most blocks of a cluster
enum Phase { kCmp, kWin, kSel, kNumPhases };

struct Params {
  const void* q;
  const float* gates;
  void* out;
  int32_t* blocks;
  const int32_t* sequence;
  const int32_t* position;
  PagedRows rows, sel, win;
  int32_t num_kv_heads, group_size;
  int32_t span_tokens, span_stride, block_tokens, num_selected, num_initial, num_local;
  int32_t window_tokens;
  int32_t num_tiles;  // of compressed rows, at most
  int32_t max_tiles;  // the same of one block of a cluster
  int32_t num_stages;
  int32_t num_shared_tiles;  // of a block, the first ones: their TileSums lie in shared memory
  bool discards_sums;        // once they have been read
  bool prefetches_likely;    // blocks that may be chosen, before the choice is complete
  void* tile_sums;           // [token][KV head][num_tiles] TileSums, of the other tiles
  float scale_log2;          // softmax scale * log2(e)
};

// What the kernel is compiled for.
template <typename Type, int kKeyDim, int kValueDim, int kRowsPerPage, int kRowsBehind>
struct Instance {
  using T = Type;
  static constexpr int kDk = kKeyDim, kDv = kValueDim;
  static constexpr int kPageRows = kRowsPerPage;  // compressed rows per page, NsaShape a
  static constexpr int kRowOffset = kRowsBehind;  // NsaShape::row_offset, e - 1
  static constexpr int kTileBlocks = kTileRows / kPageRows;
  static constexpr int kMinStages = kDk + kDv > 128 ? 2 : 4;
};

// Of one head (by HeadPlace) in one tile of compressed rows: the probability of the tile's first
// row, which the last block of the tile before reaches into, relative to the maximum.
struct alignas(8) Edge {
  float first, max;
};

// Of a tile of compressed rows, for all heads: a number per block and two more.
template <int kTileBlocks>
inline constexpr int kTileSumsBytes = (kTileBlocks + 2) * kHeads * 4;

// The fixed part of shared memory.
template <typename T>
struct alignas(16) Shared {
  TileScratch<T> tile;
  ChoiceRoom choice;
  alignas(16) float lse[kHeads];        // by HeadPlace: of the compressed branch, log2 units
  float2 weights[kNumPhases][kLeaves];  // MergeBlocks of this block's heads: [head][node]
  float factor[kNumPhases][kHeads];     // gates, and in the end gate / sum
  // Barriers. A tile is there, a tile may be overwritten:
  uint64_t full[kMaxStages], empty[kMaxStages];
  uint64_t attended;          // this block's TileSums are complete
  uint64_t sums_here;         // maxima, sums and edges of all blocks are here
  uint64_t importances_here;  // of all blocks
  uint64_t chosen_here;       // `choice` is complete
  uint64_t results_here[kNumPhases];
};

// Offsets in dynamic shared memory, bytes, for clusters of num_ranks blocks.
template <typename I>
struct Layout {
  static constexpr int kTile = kTileBytes<I::kDk, I::kDv>;
  static constexpr int kPairs = sizeof(Shared<typename I::T>);
  static constexpr int kPhaseResults = kHeads * I::kDv * 4;
  static constexpr int kSums = kTileSumsBytes<I::kTileBlocks>;
  // sums: TileSums, in the room for the results of the chosen blocks, which come when they have
  // been read, and behind it.
  int edges, importances, pages, tiles, results, sums;

  __host__ __device__ Layout(int max_tiles, int num_ranks, int num_stages) {
    const int blocks = max_tiles * I::kTileBlocks;  // of this block
    edges = kPairs + (num_ranks + 2) * kHeads * 8;
    importances =
        edges + (num_ranks == 1 ? 0 : max_tiles * kHeads * static_cast<int>(sizeof(Edge)));
    pages = importances + blocks * num_ranks * 4;
    tiles = pages + (blocks + 3) / 4 * 16;
    results = tiles + num_stages * kTile;
    sums = results + kSel * kPhaseResults;
  }

  __host__ __device__ int NumBytes(int num_shared_tiles) const {
    const int sums_bytes = num_shared_tiles * kSums;
    return sums + (sums_bytes < kPhaseResults ? kPhaseResults : sums_bytes);
  }
  // How many tiles' TileSums num_bytes have room for; negative: not even the rest.
  __host__ __device__ int NumSharedTiles(int num_bytes) const {
    return num_bytes < NumBytes(0) ? -1 : (num_bytes - sums) / kSums;
  }
};

// Heads as a lane of the products has them side by side, g and g + 8: where sums and edges have
// head h.
__host__ __device__ constexpr int HeadPlace(int head) { return head % 8 * 2 + head / 8; }

// Of one tile of compressed rows: what selection needs. All probabilities are relative to `max`.
template <typename I>
struct alignas(16) TileSums {
  // Sums of weighted probabilities as lanes of the products have them, so that a warp stores whole
  // lines: blocks 2 (lane % 4) and the next one of 8, each of heads lane / 4 and 8 more.
  float4 blocks[I::kTileBlocks / 8][32];
  // By HeadPlace:
  float first[kHeads];  // the probabilities of the tile's first row
  float max[kHeads];
};

// Of a power of two.
__device__ __forceinline__ int Log2(int value) { return 31 - __clz(value); }

// The tiles of one phase that a block has, leaf after leaf.
struct TileWalk {
  int rank, num_ranks, num_tiles, num_leaves, visit, tile;

  __device__ __forceinline__ TileWalk(int rank, int num_ranks, int num_tiles)
      : rank(rank),
        num_ranks(num_ranks),
        num_tiles(num_tiles),
        num_leaves(kLeaves >> Log2(num_ranks)),
        visit(0),
        tile(rank) {
    SkipEmptyLeaves();
  }
  __device__ __forceinline__ bool done() const { return visit >= num_leaves; }
  // Visit v has the leaf whose place is v with its bits in reverse: the tree's order.
  __device__ __forceinline__ int FirstTile(int visit) const {
    const int spare_bits = __clz(num_leaves);  // 31 - log2
    return rank + num_ranks * static_cast<int>((__brev(visit) >> 1) >> spare_bits);
  }
  __device__ __forceinline__ void Next() {
    tile += kLeaves;
    SkipEmptyLeaves();
  }

 private:
  __device__ __forceinline__ void SkipEmptyLeaves() {
    while (tile >= num_tiles && !done()) tile = FirstTile(++visit);
  }
};

}  // namespace nsa::cuda::fused_decode
