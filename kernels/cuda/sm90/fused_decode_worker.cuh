#pragma once
// A thread block of the fused decode kernel: what its threads share, and the phases around the
// attention itself (fused_decode.cu has their order and purpose).

#include <cstdint>

#include "kernels/cuda/ptx/cluster.cuh"
#include "kernels/cuda/sm90/fused_decode.h"
#include "kernels/cuda/sm90/fused_decode_tile.cuh"

namespace nsa::cuda::fused_decode {

inline constexpr int kLeaves = 16;  // and the most blocks of a cluster
inline constexpr int kMaxCandidates = 16;
inline constexpr int kSearchGroups = 64;  // of the search for the best candidates
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
  void* tile_sums;    // [token][KV head][num_tiles] TileSums
  float scale_log2;   // softmax scale * log2(e)
};

// What the kernel is compiled for.
template <typename Type, int kKeyDim, int kValueDim, int kRowsPerPage, int kRowsBehind>
struct Instance {
  using T = Type;
  static constexpr int kDk = kKeyDim, kDv = kValueDim;
  static constexpr int kPageRows = kRowsPerPage;  // compressed rows per page, NsaShape a
  static constexpr int kRowOffset = kRowsBehind;  // NsaShape::row_offset, e - 1
  static constexpr int kTileBlocks = kTileRows / kPageRows;
  static constexpr int kStages = kDk + kDv > 128 ? 2 : 4;
};

// The fixed part of shared memory.
template <typename T, int kStages>
struct alignas(16) Shared {
  union {
    TileScratch<T> tile;
    float2 weights[kNumPhases][kHeads][kLeaves];  // MergeBlocks, at the end
  };
  uint64_t full[kStages];  // barriers of the pipeline
  uint64_t group_best[kSearchGroups];
  uint64_t threshold;
  alignas(16) float lse[kHeads];     // of the compressed branch, log2 units
  float factor[kNumPhases][kHeads];  // gates, and in the end gate / sum
  int32_t chosen[kMaxFusedSelected], sorted[kMaxFusedSelected];
  int32_t num_survivors, num_finalists;
};

// Offsets in dynamic shared memory, bytes, for clusters of num_ranks blocks.
template <typename I>
struct Layout {
  static constexpr int kTile = kTileBytes<I::kDk, I::kDv>;
  static constexpr int kShared = I::kStages * kTile;
  static constexpr int kResults = kShared + sizeof(Shared<typename I::T, I::kStages>);
  static constexpr int kPhaseResults = kHeads * I::kDv * 4;
  int pairs, candidates, survivors, pages, keys, num_bytes;

  __host__ __device__ Layout(int max_tiles, int num_ranks) {
    const int blocks = max_tiles * I::kTileBlocks;
    const int group_keys = (blocks + kSearchGroups - 1) / kSearchGroups;
    pairs = kResults + kNumPhases * kPhaseResults;
    candidates = pairs + kNumPhases * num_ranks * kHeads * 8;
    survivors = candidates + num_ranks * kMaxCandidates * 8;
    pages = survivors + (group_keys > num_ranks ? group_keys : num_ranks) * kMaxCandidates * 8;
    num_bytes = pages + (blocks + 1) / 2 * 8;
    // The keys are used before the results of the last phase come.
    keys = kResults + (kNumPhases - 1) * kPhaseResults;
    if (blocks * 8 > kPhaseResults) keys = num_bytes, num_bytes += blocks * 8;
  }
};

// Of one tile of compressed rows, in global memory: what selection needs.
template <typename I>
struct alignas(16) TileSums {
  float blocks[I::kTileBlocks][kHeads];  // sums of weighted probabilities, relative to `max`
  float edge[kHeads];  // the same over the first rows, for the last block of the tile before
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

// One block of a cluster: what its threads share, and the phases. Methods are called by all
// threads.
template <typename I>
struct Worker {
  using T = typename I::T;

  const Params& p;
  Shared<T, I::kStages>& shared;
  TileSums<I>* const sums;     // [tile], of the sequence and KV head
  float* const results;        // see Result
  Pair* const pairs;           // [phase][rank][head], of every block of the cluster
  uint64_t* const candidates;  // [rank][kMaxCandidates], every block's best, 0 = none
  uint64_t* const survivors;
  uint64_t* const keys;  // [local tile][block of the tile]
  int32_t* const pages;  // [local tile][block of the tile]
  const int rank, num_ranks, rank_bits, kv_head, position, num_blocks;
  const int num_cmp_tiles, first_local, num_first, num_forced;

  __device__ __forceinline__ Worker(const Params& p, uint8_t* memory, const Layout<I>& layout,
                                    int position)
      : p(p),
        shared(*reinterpret_cast<Shared<T, I::kStages>*>(memory + Layout<I>::kShared)),
        sums(static_cast<TileSums<I>*>(p.tile_sums) +
             static_cast<int64_t>(blockIdx.z * p.num_kv_heads + blockIdx.y) * p.num_tiles),
        results(reinterpret_cast<float*>(memory + Layout<I>::kResults)),
        pairs(reinterpret_cast<Pair*>(memory + layout.pairs)),
        candidates(reinterpret_cast<uint64_t*>(memory + layout.candidates)),
        survivors(reinterpret_cast<uint64_t*>(memory + layout.survivors)),
        keys(reinterpret_cast<uint64_t*>(memory + layout.keys)),
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
        num_forced(num_first + num_blocks - first_local) {}

  __device__ __forceinline__ bool chooses() const { return num_blocks > p.num_selected; }
  __device__ __forceinline__ int num_wanted() const { return p.num_selected - num_forced; }
  __device__ __forceinline__ int num_chosen() const { return min(p.num_selected, num_blocks); }

  // Phase 1, after a tile: sums of its probabilities (scratch.weight) over the rows of each block,
  // weighted as NsaShape::RowWeight, and over the first rows, which the last block of the tile
  // before reaches into.
  __device__ __forceinline__ void SumBlocks(TileSums<I>& tile) {
    const float* const weight = shared.tile.weight;
    constexpr int a = I::kPageRows, e = I::kRowOffset + 1;
    constexpr auto row_weight = [](int k) {
      const int rise = k + 1, fall = a + e - 1 - k, top = a < e ? a : e;
      const int lower = rise < fall ? rise : fall;
      return static_cast<float>(lower < top ? lower : top);
    };
#pragma unroll 1
    for (int i = threadIdx.x; i < I::kTileBlocks * kHeads; i += kThreads) {
      const int block = i / kHeads, head = i % kHeads;
      float sum = 0;
#pragma unroll
      for (int k = 0; k < a + e - 1; ++k) {
        if (k < a || block < I::kTileBlocks - 1) {
          sum += row_weight(k) * weight[(block * a + k) * kWeightStride + head];
        }
      }
      tile.blocks[block][head] = sum;
    }
    if (e > 1 && threadIdx.x < kHeads) {
      float sum = 0;
#pragma unroll
      for (int k = a; k < a + e - 1; ++k) {
        sum += row_weight(k) * weight[(k - a) * kWeightStride + threadIdx.x];
      }
      tile.edge[threadIdx.x] = sum;
    }
  }

  // Sends maximum and sum of every head to all blocks.
  __device__ __forceinline__ void Publish(int phase, const Partial<I::kDv>& partial) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    if ((lane & 3) != 0) return;
#pragma unroll 1
    for (int peer = warp; peer < num_ranks; peer += kWarps) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Pair* const place =
            pairs + (phase * num_ranks + rank) * kHeads + (lane >> 2) + half * 8;
        StorePeer2(PeerAddress(SharedAddress(place), peer), {partial.max[half], partial.sum[half]});
      }
    }
  }

  // Phase 2: the importance of this block's candidates, as keys: larger first, then the lower
  // block.
  __device__ __forceinline__ void RankBlocks() {
    const int tid = threadIdx.x;
#pragma unroll 1
    for (int head = tid / 16; head < kHeads; head += kThreads / 16) {
      // A head that only pads the group gets probabilities of 0.
      const Pair root = MergeBlocks(pairs + head, kHeads, num_ranks, nullptr);
      if (tid % 16 == 0) shared.lse[head] = head < p.group_size ? Lse(root) : INFINITY;
    }
    __syncthreads();
    const int num_local = max(0, (num_cmp_tiles - rank + num_ranks - 1) >> rank_bits);
#pragma unroll 2
    for (int i = tid; i < num_local * I::kTileBlocks; i += kThreads) {
      const int tile = i / I::kTileBlocks * num_ranks + rank, in_tile = i % I::kTileBlocks;
      const int block = tile * I::kTileBlocks + in_tile;
      const bool has_edge =
          I::kRowOffset > 0 && in_tile == I::kTileBlocks - 1 && tile + 1 < num_cmp_tiles;
      float importance = Weigh(sums[tile].blocks[in_tile], sums[tile].max);
      if (has_edge) importance += Weigh(sums[tile + 1].edge, sums[tile + 1].max);
      const bool candidate = block >= p.num_initial && block < first_local;
      keys[i] = candidate ? (static_cast<uint64_t>(__float_as_uint(importance)) << 32) |
                                (0xffffffffu - static_cast<uint32_t>(block))
                          : 0;
    }
    __syncthreads();
    SendBest(num_local * I::kTileBlocks);
  }

  // Sum over the heads of sums relative to `max`, as probabilities.
  __device__ __forceinline__ float Weigh(const float* values, const float* max) const {
    float sum = 0;
#pragma unroll
    for (int head = 0; head < kHeads; head += 4) {
      const auto value = *reinterpret_cast<const float4*>(values + head);
      const auto top = *reinterpret_cast<const float4*>(max + head);
      const auto lse = *reinterpret_cast<const float4*>(shared.lse + head);
      sum += value.x * Exp2(top.x - lse.x) + value.y * Exp2(top.y - lse.y) +
             value.z * Exp2(top.z - lse.z) + value.w * Exp2(top.w - lse.w);
    }
    return sum;
  }

  // Sends the largest num_wanted() keys, in order, to all blocks. Groups of keys compete first:
  // what is smaller than the wanted-th best group's best cannot be among them.
  __device__ __forceinline__ void SendBest(int num_keys) {
    constexpr int kLanes = kThreads / kSearchGroups;  // threads of a group
    const int tid = threadIdx.x, group = tid / kLanes, wanted = num_wanted();
    const int group_keys = (num_keys + kSearchGroups - 1) / kSearchGroups;
    uint64_t best = 0;
#pragma unroll 1
    for (int i = tid % kLanes; i < group_keys; i += kLanes) {
      const int place = group * group_keys + i;
      if (place < num_keys && keys[place] > best) best = keys[place];
    }
#pragma unroll
    for (int step = 1; step < kLanes; step *= 2) {
      const uint64_t other = __shfl_xor_sync(kFullMask, best, step);
      best = other > best ? other : best;
    }
    if (tid % kLanes == 0) shared.group_best[group] = best;
    __syncthreads();
    {
      int order = 0;  // the group's threads share the comparisons
#pragma unroll 8
      for (int i = tid % kLanes; i < kSearchGroups; i += kLanes) {
        order += shared.group_best[i] > best;
      }
#pragma unroll
      for (int step = 1; step < kLanes; step *= 2) order += __shfl_xor_sync(kFullMask, order, step);
      if (tid % kLanes == 0 && best != 0 && order == wanted - 1) shared.threshold = best;
    }
    __syncthreads();
#pragma unroll 1
    for (int i = tid; i < num_keys; i += kThreads) {
      const uint64_t key = keys[i];
      if (key != 0 && key >= shared.threshold) survivors[atomicAdd(&shared.num_survivors, 1)] = key;
    }
    __syncthreads();
    const int num_survivors = shared.num_survivors;
#pragma unroll 1
    for (int i = tid; i < num_survivors; i += kThreads) {
      const uint64_t key = survivors[i];
      const int order = CountLarger(num_survivors, key);
      if (order >= wanted) continue;
      const uint32_t address = SharedAddress(candidates + rank * kMaxCandidates + order);
#pragma unroll 1
      for (int peer = 0; peer < num_ranks; ++peer) StorePeer(PeerAddress(address, peer), key);
    }
  }

  __device__ __forceinline__ int CountLarger(int num_survivors, uint64_t key) const {
    int count = 0;
#pragma unroll 4
    for (int i = 0; i < num_survivors; ++i) count += survivors[i] > key;
    return count;
  }

  // Phase 4: the chosen blocks in ascending order in shared.sorted.
  __device__ __forceinline__ void Choose() {
    const int tid = threadIdx.x, lane = tid & 31, wanted = num_wanted();
    if (chooses()) {
      // The wanted-th largest of the blocks' best: what is smaller cannot be chosen.
      const uint64_t best = lane < num_ranks ? candidates[lane * kMaxCandidates] : 0;
      int order = 0;
#pragma unroll 4
      for (int i = 0; i < kLeaves; ++i) order += __shfl_sync(kFullMask, best, i) > best;
      const unsigned at = __ballot_sync(kFullMask, best != 0 && order == wanted - 1);
      const uint64_t threshold = at == 0 ? 1 : __shfl_sync(kFullMask, best, __ffs(at) - 1);
#pragma unroll 1
      for (int i = tid; i < num_ranks * kMaxCandidates; i += kThreads) {
        const uint64_t key = candidates[i];
        if (key >= threshold) survivors[atomicAdd(&shared.num_finalists, 1)] = key;
      }
      __syncthreads();
      const int num_finalists = shared.num_finalists;
#pragma unroll 1
      for (int i = tid; i < num_finalists; i += kThreads) {
        const uint64_t key = survivors[i];
        const int place = CountLarger(num_finalists, key);
        const auto block = static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key));
        if (place < wanted) shared.chosen[num_forced + place] = block;
      }
      if (tid < num_forced) {
        shared.chosen[tid] = tid < num_first ? tid : first_local + tid - num_first;
      }
      __syncthreads();
      if (tid < num_chosen()) {
        const int block = shared.chosen[tid];
        int place = 0;
#pragma unroll 4
        for (int i = 0; i < num_chosen(); ++i) place += shared.chosen[i] < block;
        shared.sorted[place] = block;
      }
    } else if (tid < num_chosen()) {
      shared.sorted[tid] = tid;
    }
    __syncthreads();
  }

  // results[phase][rank][head / num_ranks][dim], of the heads that are this rank modulo num_ranks.
  __device__ __forceinline__ float* Result(int phase, int from, int head, int dim) const {
    const int num_heads = kHeads >> rank_bits;
    return results + ((phase * num_ranks + from) * num_heads + (head >> rank_bits)) * I::kDv + dim;
  }

  // Sends each head's output to the block that sums it.
  __device__ __forceinline__ void Send(int phase, const Partial<I::kDv>& partial) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int head = (lane >> 2) + half * 8;
      const float* const place =
          Result(phase, rank, head, warp * (I::kDv / kWarps) + (lane & 3) * 2);
      const uint32_t address = PeerAddress(SharedAddress(place), head & (num_ranks - 1));
#pragma unroll
      for (int part = 0; part < Partial<I::kDv>::kParts; ++part) {
        StorePeer2(address + part * 32, {partial.o[part][half * 2], partial.o[part][half * 2 + 1]});
      }
    }
  }

  // Phase 6: out[head][dim] of this block's heads.
  __device__ __forceinline__ void Sum(T* out) {
    const int tid = threadIdx.x;
#pragma unroll 1
    for (int i = tid / 16; i < kNumPhases * kHeads; i += kThreads / 16) {
      const int phase = i / kHeads, head = i % kHeads;
      const Pair root = MergeBlocks(pairs + phase * num_ranks * kHeads + head, kHeads, num_ranks,
                                    shared.weights[phase][head]);
      if (tid % 16 == 0) shared.factor[phase][head] *= root.sum > 0 ? 1 / root.sum : 0;
    }
    __syncthreads();
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
#pragma unroll 1
    for (int i = threadIdx.x; i < kHeads / kRanks * I::kDv; i += kThreads) {
      const int head = rank + kRanks * (i / I::kDv), dim = i % I::kDv;
      if (head >= p.group_size) continue;
      float sum = 0;
#pragma unroll 1
      for (int phase = 0; phase < kNumPhases; ++phase) {
        const float* const result = results + phase * kHeads * I::kDv + i;
        float values[kRanks];
#pragma unroll
        for (int from = 0; from < kRanks; ++from) {
          values[from] = result[from * (kHeads / kRanks) * I::kDv];
        }
#pragma unroll
        for (int from = kRanks - 1; from > 0;
             --from) {  // node `from` joins a node below half and it
          constexpr auto half_of = [](int node) {
            int half = 1;
            while (half * 2 <= node) half *= 2;
            return half;
          };
          const float2 w = shared.weights[phase][head][from];
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
