#pragma once
// A thread block of the fused decode kernel: what its threads share, and the phases around the
// attention itself (fused_decode.cu has their order and purpose).

#include <cstdint>

#include "kernels/cuda/ptx/prefetch.cuh"
#include "kernels/cuda/ptx/store_async.cuh"
#include "kernels/cuda/sm90/fused_decode_layout.cuh"
#include "kernels/cuda/sm90/fused_decode_stages.cuh"

namespace nsa::cuda::fused_decode {

// +inf over an empty set, so that exp2(score - lse) is 0.
__device__ __forceinline__ float Lse(const Pair& pair) {
  return pair.sum > 0 ? pair.max + __log2f(pair.sum) : INFINITY;
}

// One block of a cluster: what its threads share, and the phases. Methods are called by all threads
// of a warpgroup.
template <typename I>
struct Worker {
  using T = typename I::T;
  static_assert(I::kRowOffset <= 1);  // Edge is one row
  static_assert(sizeof(TileSums<I>) == kTileSumsBytes<I::kTileBlocks>);

  const Params& p;
  Shared<T>& shared;
  TileSums<I>* const shared_sums;  // [local tile], see SumsOf
  TileSums<I>* const global_sums;  // the same
  float* const results;            // see Result
  Pair* const pairs;  // of compressed attention: [rank][head], of every block of the cluster
  Edge* const edges;  // [local tile][head], of the tile after it; if the cluster has 2 or more
  float* const importances;  // [block], of the whole cluster
  int32_t* const pages;      // [local tile][block of the tile]
  const int rank, num_ranks, rank_bits, kv_head, position, num_blocks;
  const int num_cmp_tiles, first_local, num_first, num_forced;
  const int max_blocks;  // of a sequence

  __device__ __forceinline__ Worker(const Params& p, uint8_t* memory, const Layout<I>& layout,
                                    int position)
      : p(p),
        shared(*reinterpret_cast<Shared<T>*>(memory)),
        shared_sums(reinterpret_cast<TileSums<I>*>(memory + layout.sums)),
        global_sums(static_cast<TileSums<I>*>(p.tile_sums) +
                    static_cast<int64_t>(blockIdx.z * p.num_kv_heads + blockIdx.y) * p.num_tiles +
                    FirstTileSums(p.num_tiles)),
        results(reinterpret_cast<float*>(memory + layout.results)),
        pairs(reinterpret_cast<Pair*>(memory + Layout<I>::kPairs)),
        edges(reinterpret_cast<Edge*>(memory + layout.edges)),
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

  // The block of a tile whose sums TileSums has in this order.
  static __device__ __forceinline__ int BlockAt(unsigned slot) {
    return I::kPageRows == kChunkRows ? static_cast<int>(slot) : RowAt(slot);
  }
  // Of this block's tile number `local`.
  __device__ __forceinline__ TileSums<I>& SumsOf(int local) const {
    return (local < p.num_shared_tiles ? shared_sums : global_sums)[local];
  }
  // How many tiles the blocks of lower rank have at most.
  static __device__ __forceinline__ int FirstTileSums(int num_tiles) {
    const int num_ranks = ClusterSize(), rank = ClusterRank();
    return rank * (num_tiles >> Log2(num_ranks)) + min(rank, num_tiles & (num_ranks - 1));
  }

  static __device__ __forceinline__ void InitBarriers(Shared<T>& shared) {
    for (int i = 0; i < kMaxStages; ++i) {
      InitBarrier(SharedAddress(shared.full + i), kWarps * kWarpArrivals);
      InitBarrier(SharedAddress(shared.empty + i), kWarps * kWarpArrivals);
    }
    InitBarrier(SharedAddress(&shared.attended), kThreads);
    InitBarrier(SharedAddress(&shared.importances_here), 1);
    InitBarrier(SharedAddress(&shared.chosen_here), 32);
    // Arrivals: of all attending threads where a block stores for itself, else the one that
    // expects bytes (ExpectAll).
    const int num_arrivals = ClusterSize() == 1 ? kThreads : 1;
    InitBarrier(SharedAddress(&shared.sums_here), num_arrivals);
    for (uint64_t& barrier : shared.results_here) {
      InitBarrier(SharedAddress(&barrier), num_arrivals);
    }
    FenceBarrierInit();
  }

  // One thread: how many bytes the cluster will send here.
  __device__ __forceinline__ void ExpectAll() {
    if (num_ranks == 1) return Arrive(SharedAddress(&shared.importances_here));
    int num_bytes = num_ranks * kHeads * static_cast<int>(sizeof(Pair));
    if (I::kRowOffset > 0 && ranks_blocks()) {
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

  // Scouts: brings the tokens of the forced blocks into the L2, the blocks of a cluster in turn.
  __device__ __forceinline__ void PrefetchForced(const int32_t* block_pages) {
    const int i = static_cast<int>(threadIdx.x) & (kThreads - 1);
    if (i >= num_forced || (i & (num_ranks - 1)) != rank) return;
    PrefetchBlock(block_pages, i < num_first ? i : first_local + i - num_first);
  }
  __device__ __forceinline__ void PrefetchBlock(const int32_t* block_pages, int block) {
    const int page = block_pages[block];
    if (page < 0) return;
    const int64_t first_row =
        (static_cast<int64_t>(page) * p.num_kv_heads + kv_head) * p.block_tokens;
    PrefetchBulk(static_cast<const char*>(p.sel.k) + first_row * (I::kDk * 2),
                 p.block_tokens * (I::kDk * 2));
    PrefetchBulk(static_cast<const char*>(p.sel.v) + first_row * (I::kDv * 2),
                 p.block_tokens * (I::kDv * 2));
  }

  // Attending: the heads' queries as the A operand, through the room for the chosen blocks'
  // results, which no block sends before this one has sent the sums of phase 1.
  __device__ __forceinline__ void LoadQueries(const T* q_heads, uint32_t (&q)[I::kDk / 16][4]) {
    constexpr int kPieces = I::kDk / 8;          // of 16 bytes
    constexpr int kHeadBytes = I::kDk * 2 + 16;  // no bank conflict in ldmatrix
    static_assert(kHeads * kHeadBytes <= Layout<I>::kPhaseResults);
    const uint32_t room = SharedAddress(results + kSel * kHeads * I::kDv);
    const int tid = threadIdx.x & (kThreads - 1), lane = tid & 31;
#pragma unroll
    for (int i = tid; i < kHeads * kPieces; i += kThreads) {
      const int head = i / kPieces, piece = i % kPieces;
      uint4 value{0, 0, 0, 0};
      if (head < p.group_size) value = reinterpret_cast<const uint4*>(q_heads)[i];
      StoreShared16(room + head * kHeadBytes + piece * 16, value);
    }
    SyncAttending();
#pragma unroll
    for (int step = 0; step < I::kDk / 16; ++step) {
      LoadMatrix4(q[step], room + (lane & 15) * kHeadBytes + (lane >> 4) * 16 + step * 32);
    }
    SyncAttending();  // no warp sends before all have read
  }

  // Phase 1, attending, for a tile: sums of its probabilities over the rows of each block, weighted
  // as NsaShape::RowWeight. Rows 0 and 1 of a chunk, which is a block, and rows 2 and 3 are in two
  // warps: the first one adds what the other one shares. max: the maxima that they are relative to.
  // own[half]: of heads g and g + 8, this lane's two chunks.
  __device__ __forceinline__ void ShareSums(int tile_index, const float (&p)[2][4],
                                            const float (&max)[2], float (&own)[2][2]) {
    TileSums<I>& tile = SumsOf(tile_index >> rank_bits);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, head = lane >> 2, pair = lane & 3;
    if constexpr (I::kPageRows == 4 && I::kRowOffset == 1) {
      // Weights 1 2 2 2 of the block's own rows and 1 of the next one's first.
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float left[2] = {p[0][half * 2], p[1][half * 2]};  // of chunk 2 * pair
        const float right[2] = {p[0][half * 2 + 1], p[1][half * 2 + 1]};
        const int h = head + half * 8;
        if (warp & 1) {
          shared.tile.last_rows[warp / 2][h][pair] = {2 * left[0] + 2 * left[1],
                                                      2 * right[0] + 2 * right[1]};
          continue;
        }
        const float next = __shfl_down_sync(kFullMask, left[0], 1, 4);
        own[half][0] = __fmaf_rn(2.0F, left[1], left[0]) + right[0];
        own[half][1] = __fmaf_rn(2.0F, right[1], right[0]) + (pair < 3 ? next : 0);
        if (warp == 2 && pair == 0) shared.tile.first_row[h] = left[0];
      }
    } else {
      static_assert(I::kPageRows == 1 && I::kRowOffset == 0);
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        tile.blocks[warp * 2 + n][lane] = {p[n][0], p[n][2], p[n][1], p[n][3]};
      }
    }
    if (warp != 0 || pair != 0) return;
    const float first[2] = {p[0][0], p[0][2]};
    const int place = HeadPlace(head);
    *reinterpret_cast<float2*>(tile.first + place) = {first[0], first[1]};
    *reinterpret_cast<float2*>(tile.max + place) = {max[0], max[1]};
    if (I::kRowOffset > 0 && num_ranks > 1 && tile_index > 0) {
      const int peer = (tile_index - 1) & (num_ranks - 1);
      const int slot = (tile_index - 1) >> rank_bits;
      StorePeerAsync4(PeerAddress(SharedAddress(edges + slot * kHeads + place), peer),
                      {first[0], max[0], first[1], max[1]},
                      PeerAddress(SharedAddress(&shared.sums_here), peer));
    }
  }
  // Then, once all warps have shared.
  __device__ __forceinline__ void CollectSums(float (&own)[2][2]) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, head = lane >> 2, pair = lane & 3;
    if constexpr (I::kPageRows == kChunkRows) {
      if (warp & 1) return;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int h = head + half * 8;
        const float2 last = shared.tile.last_rows[warp / 2][h][pair];
        own[half][0] += last.x;
        own[half][1] += last.y;
        if (warp == 0 && pair == 3) own[half][1] += shared.tile.first_row[h];
      }
    }
  }
  __device__ __forceinline__ void StoreSums(int tile_index, const float (&own)[2][2]) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    if (I::kPageRows != kChunkRows || (warp & 1)) return;
    SumsOf(tile_index >> rank_bits).blocks[warp / 2][lane] = {own[0][0], own[1][0], own[0][1],
                                                              own[1][1]};
  }

  // pairs + PairIndex: where a block keeps maximum and sum. Of compressed attention every block has
  // all heads' of all blocks; of the others those of its own heads.
  __device__ __forceinline__ int PairIndex(int phase, int from, int head) const {
    return phase == kCmp
               ? from * kHeads + head
               : (num_ranks + phase - 1) * kHeads + from * heads_of_rank() + (head >> rank_bits);
  }

  // Attending: sends maximum and sum of every head to all blocks, or to the one that sums the head.
  // A block that has the cluster to itself stores the ordinary way, here and in Send.
  __device__ __forceinline__ void Publish(int phase, const Partial<I::kDv>& partial) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int peer = warp * 4 + (lane & 3);  // lanes of a quad have the same heads
    const uint64_t* const barrier = phase == kCmp ? &shared.sums_here : &shared.results_here[phase];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int head = (lane >> 2) + half * 8;
      if (peer >= num_ranks || (phase != kCmp && (head & (num_ranks - 1)) != peer)) continue;
      Pair* const place = pairs + PairIndex(phase, rank, head);
      if (num_ranks == 1) {
        *place = {partial.max[half], partial.sum[half]};
      } else {
        StorePeerAsync2(PeerAddress(SharedAddress(place), peer),
                        {partial.max[half], partial.sum[half]},
                        PeerAddress(SharedAddress(barrier), peer));
      }
    }
    if (num_ranks == 1 && phase == kCmp) Arrive(SharedAddress(barrier));
  }

  // Phase 2, scouts: sends the importance of this block's blocks; calls between() now and then. The
  // tiles of compressed rows have been attended.
  template <typename Between>
  __device__ __forceinline__ void SendImportances(const Between& between) {
    const int tid = threadIdx.x & (kThreads - 1);
    // Four lanes weigh kBatch blocks of a tile, each lane four heads of them, by HeadPlace.
    constexpr int kBatch = 4;
    constexpr unsigned kTileBatches = I::kTileBlocks / kBatch;
    const int quarter = tid & 3, num_local = NumLocal(num_cmp_tiles);
    const unsigned num_batches = num_local * kTileBatches;
    const auto heads_of = [&](const float* heads) {
      return reinterpret_cast<const float4*>(heads)[quarter];
    };
    // The last block of a tile reaches into the tile after.
    const auto reaches_on = [&](unsigned batch) {
      return I::kRowOffset > 0 && batch < num_batches && batch % kTileBatches == kTileBatches - 1 &&
             static_cast<int>(batch / kTileBatches) * num_ranks + rank + 1 < num_cmp_tiles;
    };
    float4 values[kBatch], max, next_first, next_max;
    const auto read_values = [&](unsigned batch) {
      if (batch >= num_batches) return;
      const auto local = static_cast<int>(batch / kTileBatches);
      const TileSums<I>* const from = &SumsOf(local);
      // Two blocks of two heads each, and of the next two heads 4 lanes behind.
      const float4* const pairs =
          from->blocks[batch % kTileBatches / 2] + quarter * 8 + batch % 2 * 2;
#pragma unroll
      for (int k = 0; k < kBatch; ++k) values[k] = pairs[k / 2 + k % 2 * 4];
      max = heads_of(from->max);
      if (num_ranks == 1 && reaches_on(batch)) {
        const TileSums<I>& after = SumsOf(local + 1);
        next_first = heads_of(after.first), next_max = heads_of(after.max);
      }
    };
    read_values(tid / 4);
    Wait(SharedAddress(&shared.sums_here), 0);
    Stamp(Stage::kSumsExchanged);
    FindLse(tid);
    SyncScouts();
    const float4 lse = heads_of(shared.lse);
#pragma unroll 1
    for (unsigned first = 0; first < num_batches; first += kThreads / 4) {
      const unsigned batch = first + tid / 4;
      const float4 factor = Factors(max, lse);
      float importance[kBatch];
#pragma unroll
      for (int k = 0; k < kBatch; k += 2) {
        const float4 &low = values[k], &high = values[k + 1];
        importance[k] = Weigh({low.x, low.y, high.x, high.y}, factor);
        importance[k + 1] = Weigh({low.z, low.w, high.z, high.w}, factor);
      }
      if (reaches_on(batch)) {
        if (num_ranks > 1) ReadEdge(edges + batch / kTileBatches * kHeads, next_first, next_max);
        importance[kBatch - 1] += Weigh(next_first, Factors(next_max, lse));
      }
      float own = 0;  // of block `quarter` of the batch
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        const float sum = SumQuarters(importance[k]);
        if (k == quarter) own = sum;
      }
      if (batch < num_batches) {
        const unsigned tile = batch / kTileBatches * num_ranks + rank;
        const unsigned slot = batch % kTileBatches * kBatch + quarter;
        importances[tile * I::kTileBlocks + BlockAt(slot)] = own;
      }
      if (first + kThreads / 4 >= num_batches) break;
      between();
      read_values(batch + kThreads / 4);
    }
    SyncScouts();
    ShareImportances(num_local);
  }

  // Scouts, when all importances of this block are known.
  __device__ __forceinline__ void DiscardSums() {
    constexpr int kLines = Layout<I>::kSums / kLineBytes;
    static_assert(Layout<I>::kSums % kLineBytes == 0);
    const int num_lines = p.discards_sums ? NumLocal(num_cmp_tiles) * kLines : 0;
#pragma unroll 1
    for (int i = p.num_shared_tiles * kLines + (static_cast<int>(threadIdx.x) & (kThreads - 1));
         i < num_lines; i += kThreads) {
      DiscardLine(reinterpret_cast<char*>(global_sums) + i * kLineBytes);
    }
  }

  // Scouts, once the cluster's maxima and sums are here: shared.lse.
  __device__ __forceinline__ void FindLse(int tid) {
    static_assert(kHeads * kMergeLanes == kThreads);
    const int own_head = tid / kMergeLanes;
    const Pair root = MergeBlocks<false>(pairs + own_head, kHeads, num_ranks);
    if (tid % kMergeLanes == 0) {
      // A head that only pads the group gets probabilities of 0.
      shared.lse[HeadPlace(own_head)] = own_head < p.group_size ? Lse(root) : INFINITY;
    }
  }

  // Scouts: sends the importances of this block's num_local tiles to the other blocks.
  __device__ __forceinline__ void ShareImportances(int num_local) {
    const int tid = threadIdx.x & (kThreads - 1);
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

  // This lane's four heads of an edge.
  static __device__ __forceinline__ void ReadEdge(const Edge* edge, float4& first, float4& max) {
    const auto* const pairs_of_heads =
        reinterpret_cast<const float4*>(edge + (static_cast<int>(threadIdx.x) & 3) * 4);
    const float4 low = pairs_of_heads[0], high = pairs_of_heads[1];
    first = {low.x, low.z, high.x, high.z};
    max = {low.y, low.w, high.y, high.w};
  }
  // What sums relative to the maxima are multiplied with to become probabilities.
  static __device__ __forceinline__ float4 Factors(const float4& max, const float4& lse) {
    return {Exp2(max.x - lse.x), Exp2(max.y - lse.y), Exp2(max.z - lse.z), Exp2(max.w - lse.w)};
  }
  // Sum over four heads.
  static __device__ __forceinline__ float Weigh(const float4& value, const float4& factor) {
    return (value.x * factor.x + value.y * factor.y) + (value.z * factor.z + value.w * factor.w);
  }
  static __device__ __forceinline__ float SumQuarters(float value) {
    value += __shfl_xor_sync(kFullMask, value, 1);
    return value + __shfl_xor_sync(kFullMask, value, 2);
  }

  // Phase 3, scouts: the chosen blocks in ascending order in shared.choice, with their pages. One
  // warp completes shared.chosen_here.
  __device__ __forceinline__ void Choose(const int32_t* block_pages) {
    const int tid = threadIdx.x & (kThreads - 1);
    static_assert(kMaxFusedSelected <= kThreads);
    // What needs no ranking: all blocks, or the forced ones.
    const bool is_known = tid < (chooses() ? num_forced : num_blocks);
    const bool is_behind = chooses() && tid >= num_first;  // the blocks that are ranked
    const int block = is_behind ? first_local + tid - num_first : tid;
    const int page = is_known ? block_pages[block] : -1;
    const Choice choice{shared.choice, importances, p.num_initial,
                        first_local,   num_first,   num_wanted()};
    if (ranks_blocks()) choice.FindSurvivors();
    if (is_known) {
      const int place = is_behind ? tid + num_wanted() : tid;
      shared.choice.sorted[place] = block, shared.choice.pages[place] = page;
    }
    SyncScouts();
    const int num_survivors = ranks_blocks() ? shared.choice.num_survivors : 0;
    if (num_survivors > kGroups) choice.RankByRounds(block_pages);
    if (tid >= 32) {
      if (p.prefetches_likely && tid < 32 + num_survivors && num_survivors <= kGroups) {
        const int survivor = shared.choice.survivors[tid - 32];
        if ((survivor & (num_ranks - 1)) == rank) PrefetchBlock(block_pages, survivor);
      }
      return;
    }
    if (num_survivors > 0 && num_survivors <= kGroups) choice.RankSurvivors(block_pages);
    Arrive(SharedAddress(&shared.chosen_here));
    __syncwarp();
    if (rank != 0) return;
    int32_t* const blocks =
        p.blocks + (static_cast<int64_t>(blockIdx.z) * p.num_kv_heads + kv_head) * p.num_selected;
#pragma unroll 1
    for (int i = tid; i < p.num_selected; i += 32) {
      blocks[i] = i < num_chosen() ? shared.choice.sorted[i] : -1;
    }
  }

  // results[phase][rank][head / num_ranks][dim], of the heads that are this rank modulo num_ranks.
  __device__ __forceinline__ float* Result(int phase, int from, int head, int dim) const {
    return results + ((phase * num_ranks + from) * heads_of_rank() + (head >> rank_bits)) * I::kDv +
           dim;
  }

  // Attending: sends each head's output to the block that sums it, 16 bytes at a time: of two
  // parts, neighbouring lanes exchange what makes four dims of the one in the even lane, of the
  // other in the odd one.
  __device__ __forceinline__ void Send(int phase, const Partial<I::kDv>& partial) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const bool odd = lane & 1;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int head = (lane >> 2) + half * 8, peer = head & (num_ranks - 1);
      const int dim = warp * (I::kDv / kWarps) + (odd ? 8 : 0) + (lane & 2) * 2;
      float* const place = Result(phase, rank, head, dim);
      const uint32_t address = PeerAddress(SharedAddress(place), peer);
      const uint32_t barrier = PeerAddress(SharedAddress(&shared.results_here[phase]), peer);
#pragma unroll
      for (int part = 0; part < Partial<I::kDv>::kParts; part += 2) {
        const float* const even_part = partial.o[part] + half * 2;
        const float* const odd_part = partial.o[part + 1] + half * 2;
        const float own[2] = {odd ? odd_part[0] : even_part[0], odd ? odd_part[1] : even_part[1]};
        const float sent[2] = {odd ? even_part[0] : odd_part[0], odd ? even_part[1] : odd_part[1]};
        const float got[2] = {__shfl_xor_sync(kFullMask, sent[0], 1),
                              __shfl_xor_sync(kFullMask, sent[1], 1)};
        const float4 four{odd ? got[0] : own[0], odd ? got[1] : own[1], odd ? own[0] : got[0],
                          odd ? own[1] : got[1]};
        if (num_ranks == 1) {
          *reinterpret_cast<float4*>(place + part * 8) = four;
        } else {
          StorePeerAsync4(address + part * 32, four, barrier);
        }
      }
    }
    if (num_ranks == 1) Arrive(SharedAddress(&shared.results_here[phase]));
  }

  // Scouts, once the phase's results are here: factors and weights of this block's heads.
  __device__ __forceinline__ void Weights(int phase) {
    const int tid = threadIdx.x & (kThreads - 1), num_heads = heads_of_rank();
#pragma unroll 1
    for (int i = tid / kMergeLanes; i < max(num_heads, 32 / kMergeLanes);  // whole warps
         i += kThreads / kMergeLanes) {
      const int local = min(i, num_heads - 1), head = rank + num_ranks * local;
      const Pair root =
          MergeBlocks<true>(pairs + PairIndex(phase, 0, head), phase == kCmp ? kHeads : num_heads,
                            num_ranks, shared.weights[phase] + local * num_ranks);
      if (tid % kMergeLanes == 0 && i < num_heads) {
        shared.factor[phase][head] *= root.sum > 0 ? 1 / root.sum : 0;
      }
    }
  }

  // Phase 5, scouts, phase after phase: adds its outputs of this block's heads to what results[i]
  // has of the phases before; the last one writes out[head][dim].
  __device__ __forceinline__ void Sum(int phase, T* out) {
    switch (num_ranks) {
      case 1:
        return SumRanks<1>(phase, out);
      case 2:
        return SumRanks<2>(phase, out);
      case 4:
        return SumRanks<4>(phase, out);
      case 8:
        return SumRanks<8>(phase, out);
      default:
        return SumRanks<16>(phase, out);
    }
  }
  template <int kRanks>
  __device__ __forceinline__ void SumRanks(int phase, T* out) {
    constexpr int kCount = kHeads / kRanks * I::kDv;  // numbers to sum
#pragma unroll 1
    for (int i = threadIdx.x & (kThreads - 1); i < kCount; i += kThreads) {
      const int local = i / I::kDv, head = rank + kRanks * local, dim = i % I::kDv;
      if (head >= p.group_size) continue;
      const float* const result = results + phase * kHeads * I::kDv + i;
      float values[kRanks];
#pragma unroll
      for (int from = 0; from < kRanks; ++from) {
        values[from] = result[from * kCount];
      }
#pragma unroll
      for (int from = kRanks - 1; from > 0; --from) {  // node `from` joins a node below half and it
        constexpr auto half_of = [](int node) {
          int half = 1;
          while (half * 2 <= node) half *= 2;
          return half;
        };
        const float2 w = shared.weights[phase][local * kRanks + from];
        float& left = values[from - half_of(from)];
        left = Blend({0, w.x, w.y}, left, values[from]);
      }
      const float before = phase == kCmp ? 0 : results[i];
      const float sum = before + shared.factor[phase][head] * values[0];
      if (phase == kNumPhases - 1) {
        out[head * I::kDv + dim] = T(sum);
      } else {
        results[i] = sum;
      }
    }
  }
};

}  // namespace nsa::cuda::fused_decode
