#pragma once
// How the selected branch of prefill tokens is computed. Neighbouring tokens choose different
// blocks, so gathering each token's blocks reads 64 rows of K and V for 16 rows of Q. Hence the
// blocks that are not forced are processed block by block:
//
//   plan      every chunk of tiles is inverted: for each (KV head, block) the list of (token, slot)
//             pairs that chose it, cut into items of up to kItemPairs pairs (prefill_plan.cu)
//   attend    an item's K and V are loaded once; every pair's 16 heads attend the block, and the
//             normalised result with its log-sum-exp is kept as a partial (prefill_selected.cu)
//   merge     per 8 tokens: forced blocks and window, which neighbours share, then the partials,
//             the compressed branch and the gates (prefill_merge.cu)
//
// The plan is made for the whole step, attend and merge run chunk after chunk over one set of
// partials.
//
// A slot is a block's place among the token's chosen blocks that are not forced. Where a tile's own
// block is below PrefillTuning::inline_blocks the merge kernel attends all blocks itself and there
// are no slots. The order of pairs in a list varies between runs, results do not: a pair depends on
// no other.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/sm90/prefill_branches.h"

namespace nsa::cuda {

inline constexpr int kPrefillBlock = 64;  // tokens of a block, of a page and of a tile
inline constexpr int kItemPairs = 64;

// A (token, chosen block) of a list.
struct PrefillPair {
  int32_t token;    // packed
  int32_t partial;  // index of its partial: (token of the chunk, KV head, slot)
};

// Pairs [begin, begin + count) of the list of one block of a KV head.
struct PrefillItem {
  int32_t page_head;  // page * K + head
  int32_t begin;
  int32_t count;
};

// How much one KV head of a chunk has.
struct PrefillCursors {
  unsigned long long value;  // items in the upper half, pairs in the lower
};

// A chunk of at most `max_tiles` tiles, and the lists of its plan. The arrays of the plan hold all
// chunks of a step, one after another.
struct PrefillChunk {
  const int32_t* tiles = nullptr;  // [num_tiles, 4]
  int32_t max_tiles = 0;
  const int32_t* blocks = nullptr;  // [T, K, num_selected]
  const int32_t* table = nullptr;   // [num_seqs, table_width]
  int32_t num_tiles = 0;            // of this chunk
  int32_t num_seqs = 0, table_width = 0;
  int32_t num_kv_heads = 0;
  int32_t num_selected = 0, num_initial = 0, num_local = 0;
  int32_t num_slots = 0;          // partials kept per token and KV head
  int32_t num_inline_blocks = 0;  // tiles with a lower own block have no slots

  void* partial_out =
      nullptr;  // [partials][d_v / 16][32 lanes][8] in the order of wgmma's registers
  float* partial_lse = nullptr;       // [partials][16 heads], base 2
  PrefillCursors* cursors = nullptr;  // [num_kv_heads]
  int32_t* counts = nullptr;          // [num_keys] pairs of (KV head, sequence, block)
  int32_t* offsets = nullptr;         // [num_keys] where its list begins
  int32_t* ranks = nullptr;           // [partials] place of a pair in its list
  PrefillPair* pairs = nullptr;       // [num_kv_heads][partials of a head]
  PrefillItem* items = nullptr;       // [num_kv_heads][items of a head]

  __host__ __device__ int64_t head_keys() const { return int64_t{num_seqs} * table_width; }
  __host__ __device__ int64_t head_partials() const {
    return int64_t{max_tiles} * kPrefillBlock * num_slots;
  }
  __host__ __device__ int64_t head_items() const {  // at most
    return head_partials() / kItemPairs +
           (head_keys() < head_partials() ? head_keys() : head_partials());
  }
  __host__ __device__ int64_t num_keys() const { return num_kv_heads * head_keys(); }
  __host__ __device__ int64_t num_partials() const { return num_kv_heads * head_partials(); }
  __host__ __device__ int64_t max_items() const { return num_kv_heads * head_items(); }

  // This chunk, if the plan's arrays point at the first chunk's.
  __host__ __device__ PrefillChunk At(int64_t index, int64_t num_tiles_of_step) const {
    PrefillChunk chunk = *this;
    chunk.tiles += index * max_tiles * 4;
    const int64_t left = num_tiles_of_step - index * max_tiles;
    chunk.num_tiles = static_cast<int32_t>(left < max_tiles ? left : max_tiles);
    chunk.cursors += index * num_kv_heads;
    chunk.counts += index * num_keys();
    chunk.offsets += index * num_keys();
    chunk.ranks += index * num_partials();
    chunk.pairs += index * num_partials();
    chunk.items += index * max_items();
    return chunk;
  }

  __device__ int NumItems(int head) const { return static_cast<int>(cursors[head].value >> 32); }
  __device__ const PrefillItem* Items(int head) const { return items + head * head_items(); }

  // Slots in use by the tokens whose own block is `own`.
  __host__ __device__ int NumSlots(int own) const {
    if (own < num_inline_blocks) return 0;
    const int chosen = own + 1 < num_selected ? own + 1 : num_selected;
    const int forced = num_initial + num_local;
    return chosen > forced ? chosen - forced : 0;
  }
};

// The chunks of a step.
struct PrefillSteps {
  PrefillChunk first;
  int64_t num_tiles = 0;
  int64_t num_chunks = 0;
  PrefillChunk At(int64_t index) const { return first.At(index, num_tiles); }
};
PrefillSteps MakePrefillSteps(const PrefillBranchesArgs& args);

// Inverts every chunk: fills cursors, counts, offsets, ranks, pairs and items.
void LaunchPrefillPlan(const PrefillSteps& steps, cudaStream_t stream);

// Fills the partials of the chunk.
void LaunchPrefillSelected(const PrefillBranchesArgs& args, const PrefillChunk& chunk, int num_sms,
                           cudaStream_t stream);

// Writes args.out for the chunk's tokens.
void LaunchPrefillMerge(const PrefillBranchesArgs& args, const PrefillChunk& chunk, int num_sms,
                        cudaStream_t stream);

}  // namespace nsa::cuda
