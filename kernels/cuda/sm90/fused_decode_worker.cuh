#pragma once
// A thread block of the fused decode kernel: what its threads share, and the phases around the
// attention itself (fused_decode.cu has their order and purpose).

#include <cstdint>

#include "kernels/cuda/ptx/store_async.cuh"
#include "kernels/cuda/sm90/fused_decode.h"
#include "kernels/cuda/sm90/fused_decode_tile.cuh"

namespace nsa::cuda::fused_decode {

inline constexpr int kMaxStages = 6;  // tiles on their way to a block
inline constexpr int kLeafBits = 4;
inline constexpr int kLeaves = 1 << kLeafBits;  // and the most blocks of a cluster
inline constexpr int kMaxFree = 16;             // blocks to choose besides the forced ones
inline constexpr int kMaxSharedTiles = 16;      // of a block whose TileSums lie in shared memory
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
  void* tile_sums;   // [token][KV head][num_tiles] TileSums
  float scale_log2;  // softmax scale * log2(e)
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

// Of one head in one tile of compressed rows: the probability of the tile's first row, which the
// last block of the tile before reaches into, relative to the maximum.
struct alignas(8) Edge {
  float first, max;
};

// The fixed part of shared memory.
template <typename T>
struct alignas(16) Shared {
  TileScratch<T> tile;
  alignas(16) uint64_t thread_best[kThreads];  // FindBest
  alignas(16) uint64_t group_best[kWarps][32];
  int32_t num_survivors[kWarps];
  int32_t best[kMaxFree];
  alignas(16) float lse[kHeads];        // of the compressed branch, log2 units
  float2 weights[kNumPhases][kLeaves];  // MergeBlocks of this block's heads: [head][node]
  float factor[kNumPhases][kHeads];     // gates, and in the end gate / sum
  int32_t sorted[kMaxFusedSelected];    // the chosen blocks, ascending
  // Barriers. A tile is there, a tile may be overwritten:
  uint64_t full[kMaxStages], empty[kMaxStages];
  uint64_t attended;          // this block's TileSums are complete
  uint64_t sums_here;         // maxima, sums and edges of all blocks are here
  uint64_t importances_here;  // of all blocks
  uint64_t chosen_here;       // `sorted` is complete
  uint64_t results_here[kNumPhases];
};

// Offsets in dynamic shared memory, bytes, for clusters of num_ranks blocks.
template <typename I>
struct Layout {
  static constexpr int kTile = kTileBytes<I::kDk, I::kDv>;
  static constexpr int kResults = sizeof(Shared<typename I::T>);
  static constexpr int kPhaseResults = kHeads * I::kDv * 4;
  static constexpr int kPairs = kResults + kNumPhases * kPhaseResults;
  int edges, importances, pages, sums, tiles;  // sums: 0 = in global memory

  __host__ __device__ int NumBytes(int num_stages) const { return tiles + num_stages * kTile; }

  __host__ __device__ Layout(int max_tiles, int num_ranks) {
    const int blocks = max_tiles * I::kTileBlocks;  // of this block
    const int thread_keys = (blocks * num_ranks + kThreads - 1) / kThreads;
    const int edge_bytes = num_ranks == 1 ? 0 : max_tiles * kHeads * static_cast<int>(sizeof(Edge));
    const int survivor_bytes = thread_keys * kWarps * kMaxFree * 4;
    edges = kPairs + (num_ranks + 2) * kHeads * 8;
    // The survivors are found when the edges have been used.
    importances = edges + (edge_bytes > survivor_bytes ? edge_bytes : survivor_bytes);
    pages = importances + blocks * num_ranks * 4;
    tiles = pages + (blocks + 3) / 4 * 16;
    sums = 0;
    // One token has the multiprocessors to itself.
    if (num_ranks == kLeaves && max_tiles <= kMaxSharedTiles) {
      sums = tiles;
      tiles += max_tiles * (I::kTileBlocks + 2) * kHeads * 4;
    }
  }
};

// Of one tile of compressed rows, in global memory: what selection needs.
template <typename I>
struct alignas(16) TileSums {
  float blocks[I::kTileBlocks][kHeads];  // sums of weighted probabilities, relative to the maximum
  Edge edge[kHeads];
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
  __device__ __forceinline__ void Next() {
    tile += kLeaves;
    SkipEmptyLeaves();
  }

 private:
  // Visit v has the leaf whose place is v with its bits in reverse: the tree's order.
  __device__ __forceinline__ void SkipEmptyLeaves() {
    const int spare_bits = __clz(num_leaves);  // 31 - log2
    while (tile >= num_tiles && !done()) {
      tile = rank + num_ranks * static_cast<int>((__brev(++visit) >> 1) >> spare_bits);
    }
  }
};

// +inf over an empty set, so that exp2(score - lse) is 0.
__device__ __forceinline__ float Lse(const Pair& pair) {
  return pair.sum > 0 ? pair.max + log2f(pair.sum) : INFINITY;
}

// One block of a cluster: what its threads share, and the phases. Methods are called by all threads
// of a warpgroup.
template <typename I>
struct Worker {
  using T = typename I::T;
  static_assert(I::kRowOffset <= 1);  // Edge is one row

  const Params& p;
  Shared<T>& shared;
  TileSums<I>* const sums;  // see SumsOf
  float* const results;     // see Result
  Pair* const pairs;        // of compressed attention: [rank][head], of every block of the cluster
  Edge* const edges;  // [local tile][head], of the tile after it; if the cluster has 2 or more
  int32_t* const survivors;  // FindBest
  float* const importances;  // [block], of the whole cluster
  int32_t* const pages;      // [local tile][block of the tile]
  const int sums_bits, rank, num_ranks, rank_bits, kv_head, position, num_blocks;
  const int num_cmp_tiles, first_local, num_first, num_forced;
  const int max_blocks;  // of a sequence

  __device__ __forceinline__ Worker(const Params& p, uint8_t* memory, const Layout<I>& layout,
                                    int position)
      : p(p),
        shared(*reinterpret_cast<Shared<T>*>(memory)),
        sums(layout.sums != 0 ? reinterpret_cast<TileSums<I>*>(memory + layout.sums)
                              : static_cast<TileSums<I>*>(p.tile_sums) +
                                    static_cast<int64_t>(blockIdx.z * p.num_kv_heads + blockIdx.y) *
                                        p.num_tiles),
        sums_bits(layout.sums != 0 ? kLeafBits : 0),
        results(reinterpret_cast<float*>(memory + Layout<I>::kResults)),
        pairs(reinterpret_cast<Pair*>(memory + Layout<I>::kPairs)),
        edges(reinterpret_cast<Edge*>(memory + layout.edges)),
        survivors(reinterpret_cast<int32_t*>(memory + layout.edges)),
        importances(reinterpret_cast<float*>(memory + layout.importances)),
        pages(reinterpret_cast<int32_t*>(memory + layout.pages)),
        rank(static_cast<int>(ClusterRank())),
        num_ranks(static_cast<int>(ClusterSize())),
        rank_bits(Log2(num_ranks)),
        kv_head(blockIdx.y),
        position(position),
        num_blocks(position / p.block_tokens + 1),
        num_cmp_tiles((num_blocks * I::kPageRows + kTileRows - 1) / kTileRows),
        first_local(max(0, num_blocks - p.num_local)),
        num_first(min(p.num_initial, first_local)),
        num_forced(num_first + num_blocks - first_local),
        max_blocks((p.max_tiles << rank_bits) * I::kTileBlocks) {}

  __device__ __forceinline__ bool chooses() const { return num_blocks > p.num_selected; }
  // True if the importances decide anything.
  __device__ __forceinline__ bool ranks_blocks() const { return chooses() && num_wanted() > 0; }
  __device__ __forceinline__ int num_wanted() const { return p.num_selected - num_forced; }
  __device__ __forceinline__ int num_chosen() const { return min(p.num_selected, num_blocks); }
  // Of tiles 0 .. num_tiles - 1, those of this block.
  __device__ __forceinline__ int NumLocal(int num_tiles) const {
    return max(0, (num_tiles - rank + num_ranks - 1) >> rank_bits);
  }
  __device__ __forceinline__ int heads_of_rank() const { return kHeads >> rank_bits; }

  __device__ __forceinline__ TileSums<I>& SumsOf(int tile) const { return sums[tile >> sums_bits]; }

  static __device__ __forceinline__ void InitBarriers(Shared<T>& shared) {
    for (uint64_t& barrier : shared.full) InitBarrier(SharedAddress(&barrier), kThreads);
    for (uint64_t& barrier : shared.empty) InitBarrier(SharedAddress(&barrier), kWarps);
    InitBarrier(SharedAddress(&shared.attended), kThreads);
    InitBarrier(SharedAddress(&shared.sums_here), 1);
    InitBarrier(SharedAddress(&shared.importances_here), 1);
    InitBarrier(SharedAddress(&shared.chosen_here), 32);
    for (uint64_t& barrier : shared.results_here) InitBarrier(SharedAddress(&barrier), 1);
    FenceBarrierInit();
  }

  // One thread: how many bytes the cluster will send here.
  __device__ __forceinline__ void ExpectAll() {
    int num_bytes = num_ranks * kHeads * static_cast<int>(sizeof(Pair));
    if (num_ranks > 1 && I::kRowOffset > 0 && ranks_blocks()) {
      num_bytes += NumLocal(num_cmp_tiles - 1) * kHeads * static_cast<int>(sizeof(Edge));
    }
    ArriveExpectBytes(SharedAddress(&shared.sums_here), num_bytes);
    const int num_foreign = num_cmp_tiles - NumLocal(num_cmp_tiles);
    ArriveExpectBytes(SharedAddress(&shared.importances_here),
                      ranks_blocks() ? num_foreign * I::kTileBlocks * 4 : 0);
    for (int phase = kCmp; phase < kNumPhases; ++phase) {
      const int pair_bytes = phase == kCmp ? 0 : kHeads * static_cast<int>(sizeof(Pair));
      ArriveExpectBytes(SharedAddress(&shared.results_here[phase]),
                        Layout<I>::kPhaseResults + pair_bytes);
    }
  }

  // Phase 1, attending, after a tile: sums of its probabilities over the rows of each block,
  // weighted as NsaShape::RowWeight.
  __device__ __forceinline__ void SumBlocks(int tile_index, const float (&p)[2][4],
                                            const Partial<I::kDv>& leaf) {
    TileSums<I>& tile = SumsOf(tile_index);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, head = lane >> 2, pair = lane & 3;
    if constexpr (I::kPageRows == 4 && I::kRowOffset == 1) {
      // Weights 1 2 2 2 of the block's own rows, two lanes having two each, and 1 of the next row.
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float own[2], swapped[2];
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          const float p0 = p[n][half * 2], p1 = p[n][half * 2 + 1];
          own[n] = __fmaf_rn(2.0F, p1, (pair & 1) == 0 ? p0 : 2.0F * p0);
          own[n] += __shfl_xor_sync(kFullMask, own[n], 1);
          swapped[n] = __shfl_xor_sync(kFullMask, p0, 2);
        }
        const int h = head + half * 8;
        const float beyond =
            warp < kWarps - 1 ? shared.tile.first[(warp + 1) & (kWarps - 1)][h] : 0.0F;
        if ((pair & 1) == 0) {
          float* const to = &tile.blocks[warp * 4 + pair / 2][h];
          to[0] = own[0] + (pair == 0 ? swapped[0] : swapped[1]);
          to[2 * kHeads] = own[1] + (pair == 0 ? swapped[1] : beyond);
        }
      }
    } else {
      static_assert(I::kPageRows == 1 && I::kRowOffset == 0);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int row = warp * kWarpRows + i / 4 * 8 + pair * 2 + (i & 1);
        tile.blocks[row][head + ((i >> 1) & 1) * 8] = p[i / 4][i % 4];
      }
    }
    if (warp == 0 && pair == 0) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int h = head + half * 8;
        const Edge edge{p[0][half * 2], leaf.max[half]};
        tile.edge[h] = edge;
        if (I::kRowOffset > 0 && num_ranks > 1 && tile_index > 0 && ranks_blocks()) {
          const int peer = (tile_index - 1) & (num_ranks - 1);
          const int slot = (tile_index - 1) >> rank_bits;
          StorePeerAsync2(PeerAddress(SharedAddress(edges + slot * kHeads + h), peer),
                          {edge.first, edge.max},
                          PeerAddress(SharedAddress(&shared.sums_here), peer));
        }
      }
    }
  }

  // pairs + PairIndex: where a block keeps maximum and sum. Of compressed attention every block has
  // all heads' of all blocks; of the others those of its own heads.
  __device__ __forceinline__ int PairIndex(int phase, int from, int head) const {
    return phase == kCmp
               ? from * kHeads + head
               : (num_ranks + phase - 1) * kHeads + from * heads_of_rank() + (head >> rank_bits);
  }

  // Attending: sends maximum and sum of every head to all blocks, or to the one that sums the head.
  __device__ __forceinline__ void Publish(int phase, const Partial<I::kDv>& partial) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int peer = warp * 4 + (lane & 3);  // lanes of a quad have the same heads
    const uint64_t* const barrier = phase == kCmp ? &shared.sums_here : &shared.results_here[phase];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int head = (lane >> 2) + half * 8;
      if (peer >= num_ranks || (phase != kCmp && (head & (num_ranks - 1)) != peer)) continue;
      StorePeerAsync2(PeerAddress(SharedAddress(pairs + PairIndex(phase, rank, head)), peer),
                      {partial.max[half], partial.sum[half]},
                      PeerAddress(SharedAddress(barrier), peer));
    }
  }

  // Phase 2, scouts: sends the importance of this block's blocks; calls between() now and then.
  template <typename Between>
  __device__ __forceinline__ void SendImportances(const Between& between) {
    const int tid = threadIdx.x & (kThreads - 1);
#pragma unroll
    for (int head = tid / 16; head < kHeads; head += kThreads / 16) {
      // A head that only pads the group gets probabilities of 0.
      const Pair root = MergeBlocks(pairs + head, kHeads, num_ranks, nullptr);
      if (tid % 16 == 0) shared.lse[head] = head < p.group_size ? Lse(root) : INFINITY;
    }
    SyncScouts();
    // Four lanes share a block, each has four heads.
    const int quarter = tid & 3, num_local = NumLocal(num_cmp_tiles);
    const auto lse = *reinterpret_cast<const float4*>(shared.lse + quarter * 4);
    constexpr int kLast = I::kTileBlocks - 1;
    if constexpr (I::kRowOffset > 0) {  // what the last blocks of tiles get from the tile after
#pragma unroll 1
      for (int local = tid / 4; local < (num_local + 7) / 8 * 8; local += kThreads / 4) {
        const int tile = local * num_ranks + rank;
        float importance = 0;
        if (tile + 1 < num_cmp_tiles) {
          const Edge* const edge =
              (num_ranks == 1 ? sums[tile + 1].edge : edges + local * kHeads) + quarter * 4;
          const auto e01 = reinterpret_cast<const float4*>(edge)[0];
          const auto e23 = reinterpret_cast<const float4*>(edge)[1];
          importance = Weigh({e01.x, e01.z, e23.x, e23.z}, e01, e23, lse);
        }
        importance = SumQuarters(importance);
        if (quarter == 0 && local < num_local) {
          importances[tile * I::kTileBlocks + kLast] = importance;
        }
      }
      SyncScouts();
    }
#pragma unroll 1
    for (int first = tid / 4; first < num_local * I::kTileBlocks; first += kThreads) {
      float4 values[4], e01[4], e23[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) {  // all reads before all use
        const int i = min(first + k * (kThreads / 4), num_local * I::kTileBlocks - 1);
        const int tile = i / I::kTileBlocks * num_ranks + rank;
        const TileSums<I>& from = SumsOf(tile);
        values[k] = reinterpret_cast<const float4*>(from.blocks[i % I::kTileBlocks])[quarter];
        e01[k] = reinterpret_cast<const float4*>(from.edge)[quarter * 2];
        e23[k] = reinterpret_cast<const float4*>(from.edge)[quarter * 2 + 1];
      }
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int i = first + k * (kThreads / 4);
        const float importance = SumQuarters(Weigh(values[k], e01[k], e23[k], lse));
        if (quarter != 0 || i >= num_local * I::kTileBlocks) continue;
        const int in_tile = i % I::kTileBlocks;
        float* const place =
            importances + (i / I::kTileBlocks * num_ranks + rank) * I::kTileBlocks + in_tile;
        *place = importance + (I::kRowOffset > 0 && in_tile == kLast ? *place : 0.0F);
      }
      between();
    }
    SyncScouts();
    if (num_ranks == 1) return;
    constexpr int kPieces = I::kTileBlocks / 4;  // of 16 bytes
#pragma unroll 1
    for (int i = tid; i < num_local * kPieces * num_ranks; i += kThreads) {
      const int peer = (i + rank) & (num_ranks - 1), piece = i >> rank_bits;
      if (peer == rank) continue;
      const int tile = piece / kPieces * num_ranks + rank;
      const float* const place = importances + tile * I::kTileBlocks + piece % kPieces * 4;
      StorePeerAsync4(PeerAddress(SharedAddress(place), peer),
                      *reinterpret_cast<const float4*>(place),
                      PeerAddress(SharedAddress(&shared.importances_here), peer));
    }
  }

  // Sum over four heads of sums relative to the maxima of two pairs of Edge, as probabilities.
  static __device__ __forceinline__ float Weigh(const float4& value, const float4& e01,
                                                const float4& e23, const float4& lse) {
    return (value.x * Exp2(e01.y - lse.x) + value.y * Exp2(e01.w - lse.y)) +
           (value.z * Exp2(e23.y - lse.z) + value.w * Exp2(e23.w - lse.w));
  }
  static __device__ __forceinline__ float SumQuarters(float value) {
    value += __shfl_xor_sync(kFullMask, value, 1);
    return value + __shfl_xor_sync(kFullMask, value, 2);
  }

  // Larger first, then the lower block; 0 = no candidate.
  __device__ __forceinline__ uint64_t Key(int block) const {
    if (block < p.num_initial || block >= first_local) return 0;  // -1 too
    return (static_cast<uint64_t>(__float_as_uint(importances[block])) << 32) |
           (0xffffffffu - static_cast<uint32_t>(block));
  }

  // Phase 3, scouts: the num_wanted() blocks with the largest keys, for one warp: lane i gets the
  // i-th of them in ascending order. Keys are dealt to 32 groups; what is smaller than the
  // wanted-th best group's best cannot be chosen.
  __device__ __forceinline__ int FindBest() {
    const int tid = threadIdx.x & (kThreads - 1), lane = tid & 31, warp = tid >> 5;
    const int wanted = num_wanted();
    uint64_t best = 0;
#pragma unroll 1
    for (int i = tid; i < first_local; i += kThreads) {
      const uint64_t key = Key(i);
      best = key > best ? key : best;
    }
    shared.thread_best[tid] = best;
    SyncScouts();
    best = 0;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) {
      const uint64_t other = shared.thread_best[i * 32 + lane];
      best = other > best ? other : best;
    }
    shared.group_best[warp][lane] = best;  // every warp for itself
    __syncwarp();
    int order[4] = {};
#pragma unroll 2
    for (int i = 0; i < 32; i += 4) {
      const auto a = *reinterpret_cast<const ulonglong2*>(&shared.group_best[warp][i]);
      const auto b = *reinterpret_cast<const ulonglong2*>(&shared.group_best[warp][i + 2]);
      order[0] += a.x > best, order[1] += a.y > best;
      order[2] += b.x > best, order[3] += b.y > best;
    }
    const bool is_last = (order[0] + order[1]) + (order[2] + order[3]) == wanted - 1 && best != 0;
    const unsigned last = __ballot_sync(kFullMask, is_last);
    const uint64_t threshold = last == 0 ? 1 : __shfl_sync(kFullMask, best, __ffs(last) - 1);
    const int capacity = (max_blocks + kThreads - 1) / kThreads * kMaxFree;  // of a warp
    int count = 0;
#pragma unroll 1
    for (int first = 0; first < first_local; first += kThreads) {
      const int i = first + tid;
      const uint64_t key = i < first_local ? Key(i) : 0;
      const unsigned found = __ballot_sync(kFullMask, key >= threshold);
      const int place = warp * capacity + count + __popc(found & ((1u << lane) - 1));
      if (key >= threshold) survivors[place] = i;
      count += __popc(found);
    }
    if (lane == 0) shared.num_survivors[warp] = count;
    SyncScouts();
    if (warp != 0) return 0;
    const int end0 = shared.num_survivors[0], end1 = end0 + shared.num_survivors[1];
    const int end2 = end1 + shared.num_survivors[2], end3 = end2 + shared.num_survivors[3];
    const auto survivor = [&](int i) {
      const int from = (i >= end0) + (i >= end1) + (i >= end2);
      const int begin = from == 0 ? 0 : from == 1 ? end0 : from == 2 ? end1 : end2;
      return i < end3 ? survivors[from * capacity + i - begin] : -1;
    };
#pragma unroll 1
    for (int first = 0; first < end3; first += 32) {
      const int block = survivor(first + lane);
      const uint64_t key = Key(block);
      int place = 0;
#pragma unroll 1
      for (int from = 0; from < end3; from += 32) {
        const uint64_t other = Key(survivor(from + lane));
#pragma unroll 8
        for (int i = 0; i < 32; ++i) place += __shfl_sync(kFullMask, other, i) > key;
      }
      if (key != 0 && place < wanted) shared.best[place] = block;
    }
    __syncwarp();
    const int block = lane < wanted ? shared.best[lane] : INT32_MAX;
    int place = 0;
#pragma unroll
    for (int i = 0; i < kMaxFree; ++i) place += __shfl_sync(kFullMask, block, i) < block;
    __syncwarp();
    if (lane < wanted) shared.best[place] = block;
    __syncwarp();
    return lane < wanted ? shared.best[lane] : 0;
  }

  // Phase 3, scouts: the chosen blocks in ascending order in shared.sorted; written by one warp,
  // which completes shared.chosen_here.
  __device__ __forceinline__ void Choose() {
    const int tid = threadIdx.x & (kThreads - 1), wanted = num_wanted();
    int best = 0;
    if (ranks_blocks()) best = FindBest();
    if (tid >= 32) return;
    if (chooses()) {
      if (tid < wanted) shared.sorted[num_first + tid] = best;
#pragma unroll 1
      for (int i = tid; i < num_forced; i += 32) {
        const bool is_first = i < num_first;
        shared.sorted[is_first ? i : i + wanted] = is_first ? i : first_local + i - num_first;
      }
    } else {
#pragma unroll 1
      for (int i = tid; i < num_chosen(); i += 32) shared.sorted[i] = i;
    }
    Arrive(SharedAddress(&shared.chosen_here));
    __syncwarp();
    if (rank != 0) return;
    int32_t* const blocks =
        p.blocks + (static_cast<int64_t>(blockIdx.z) * p.num_kv_heads + kv_head) * p.num_selected;
#pragma unroll 1
    for (int i = tid; i < p.num_selected; i += 32) {
      blocks[i] = i < num_chosen() ? shared.sorted[i] : -1;
    }
  }

  // results[phase][rank][head / num_ranks][dim], of the heads that are this rank modulo num_ranks.
  __device__ __forceinline__ float* Result(int phase, int from, int head, int dim) const {
    return results + ((phase * num_ranks + from) * heads_of_rank() + (head >> rank_bits)) * I::kDv +
           dim;
  }

  // Attending: sends each head's output to the block that sums it.
  __device__ __forceinline__ void Send(int phase, const Partial<I::kDv>& partial) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int head = (lane >> 2) + half * 8, peer = head & (num_ranks - 1);
      const float* const place =
          Result(phase, rank, head, warp * (I::kDv / kWarps) + (lane & 3) * 2);
      const uint32_t address = PeerAddress(SharedAddress(place), peer);
      const uint32_t barrier = PeerAddress(SharedAddress(&shared.results_here[phase]), peer);
#pragma unroll
      for (int part = 0; part < Partial<I::kDv>::kParts; ++part) {
        StorePeerAsync2(address + part * 32,
                        {partial.o[part][half * 2], partial.o[part][half * 2 + 1]}, barrier);
      }
    }
  }

  // Scouts, once the phase's results are here: factors and weights of this block's heads.
  __device__ __forceinline__ void Weights(int phase) {
    const int tid = threadIdx.x & (kThreads - 1), num_heads = heads_of_rank();
#pragma unroll 1
    for (int i = tid / 16; i < max(num_heads, 2); i += kThreads / 16) {  // whole warps
      const int local = min(i, num_heads - 1), head = rank + num_ranks * local;
      const Pair root =
          MergeBlocks(pairs + PairIndex(phase, 0, head), phase == kCmp ? kHeads : num_heads,
                      num_ranks, shared.weights[phase] + local * num_ranks);
      if (tid % 16 == 0 && i < num_heads) {
        shared.factor[phase][head] *= root.sum > 0 ? 1 / root.sum : 0;
      }
    }
  }

  // Phase 6, scouts: out[head][dim] of this block's heads.
  __device__ __forceinline__ void Sum(T* out) {
    switch (num_ranks) {
      case 1:
        return SumRanks<1>(out);
      case 2:
        return SumRanks<2>(out);
      case 4:
        return SumRanks<4>(out);
      case 8:
        return SumRanks<8>(out);
      default:
        return SumRanks<16>(out);
    }
  }
  template <int kRanks>
  __device__ __forceinline__ void SumRanks(T* out) {
    constexpr int kCount = kHeads / kRanks * I::kDv;  // numbers to sum
#pragma unroll 1
    for (int i = threadIdx.x & (kThreads - 1); i < kCount; i += kThreads) {
      const int local = i / I::kDv, head = rank + kRanks * local, dim = i % I::kDv;
      if (head >= p.group_size) continue;
      float sum = 0;
#pragma unroll 1
      for (int phase = 0; phase < kNumPhases; ++phase) {
        const float* const result = results + phase * kHeads * I::kDv + i;
        float values[kRanks];
#pragma unroll
        for (int from = 0; from < kRanks; ++from) {
          values[from] = result[from * kCount];
        }
#pragma unroll
        for (int from = kRanks - 1; from > 0;
             --from) {  // node `from` joins a node below half and it
          constexpr auto half_of = [](int node) {
            int half = 1;
            while (half * 2 <= node) half *= 2;
            return half;
          };
          const float2 w = shared.weights[phase][local * kRanks + from];
          float& left = values[from - half_of(from)];
          left = Blend({0, w.x, w.y}, left, values[from]);
        }
        sum += shared.factor[phase][head] * values[0];
      }
      out[head * I::kDv + dim] = T(sum);
    }
  }
};

}  // namespace nsa::cuda::fused_decode
