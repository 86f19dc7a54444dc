#pragma once
// The inner part of the fused decode kernel: one thread block attends tiles of 64 cached rows for
// the heads of a group, and partial results are merged as nodes of one fixed tree.

#include <cfloat>
#include <cstdint>

#include "kernels/cuda/device/fast_divide.cuh"
#include "kernels/cuda/ptx/bulk_copy.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/mma.cuh"

namespace nsa::cuda::fused_decode {

// A block: a warpgroup that attends tiles, and one that brings them and chooses blocks (scouts).
inline constexpr int kWarps = 4;
inline constexpr int kThreads = kWarps * 32;  // of a warpgroup
inline constexpr int kAllThreads = 2 * kThreads;
inline constexpr int kHeads = 16;  // heads of a group, padded: the M side of the products
inline constexpr int kTileRows = 64;
inline constexpr int kWarpRows = kTileRows / kWarps;  // rows that a warp brings, or scores
inline constexpr int kChunkRows = 4;                  // neighbours: as a rule also in the cache
inline constexpr int kHalfChunks = 8;                 // of half a tile, see RowAt()
inline constexpr int kProbStride = kTileRows + 8;     // 16-bit elements; no ldmatrix conflicts
inline constexpr unsigned kFullMask = 0xffffffffu;

// Waits for the other threads of the warpgroup.
__device__ __forceinline__ void SyncScouts() { SyncNamed(1, kThreads); }
__device__ __forceinline__ void SyncAttending() { SyncNamed(2, kThreads); }

// PagedKv, as the device sees it.
struct PagedRows {
  const void* k;
  const void* v;
  const int32_t* table;
  FastDivide table_width, page_rows;
};

// Maximum and sum of one head's softmax, scores in units of log2.
struct Pair {
  float max, sum;
};

// Weights of a node's two children, so that both count from the larger maximum.
struct Weights {
  float max, left, right;
};
__device__ __forceinline__ Weights ChildWeights(float left, float right) {
  const float max = fmaxf(left, right);
  const float shift = fmaxf(max, -FLT_MAX);  // two empty sets have weights of 0, not NaN
  return {max, Exp2(left - shift), Exp2(right - shift)};
}
__device__ __forceinline__ float Blend(const Weights& weights, float left, float right) {
  return __fmaf_rn(left, weights.left, __fmul_rn(right, weights.right));
}
// The root over the blocks of a cluster, pairs[i * stride] being block i's, for the first of
// kMergeLanes lanes that work on one head. With kKeeps, a node's weights of its children are left
// in `weights`: node half + i joins i and i + half.
//
// Leaves go to blocks so that with 2^n blocks, block s has those that are s modulo 2^n, and they
// form a subtree. So children differ in the highest bit that is left, and a tree over blocks
// continues the trees inside them: any number of blocks gives the same bits.
inline constexpr int kMergeLanes = 8;
template <bool kKeeps>
__device__ __forceinline__ Pair MergeBlocks(const Pair* pairs, int stride, int num_blocks,
                                            float2* weights = nullptr) {
  const int i = threadIdx.x & (kMergeLanes - 1);
  Pair node = i < num_blocks ? pairs[i * stride] : Pair{-INFINITY, 0};
  const auto join = [&](int half, const Pair& other) {
    const Weights w = ChildWeights(node.max, other.max);
    if (kKeeps && i < half) weights[half + i] = {w.left, w.right};
    node = {w.max, Blend(w, node.sum, other.sum)};
  };
  if (num_blocks > kMergeLanes) join(kMergeLanes, pairs[(i + kMergeLanes) * stride]);
#pragma unroll
  for (int half = kMergeLanes / 2; half >= 1; half /= 2) {
    const Pair other{__shfl_down_sync(kFullMask, node.max, half, kMergeLanes),
                     __shfl_down_sync(kFullMask, node.sum, half, kMergeLanes)};
    if (half < num_blocks) join(half, other);
  }
  return node;
}

// What a thread knows of attention over some rows. Every thread keeps maximum and sum of its heads
// g = lane / 4 and g + 8, and the outputs of these heads in its warp's dims.
template <int kDv>
struct Partial {
  static constexpr int kParts = kDv / kWarps / 8;  // of 8 dims per warp
  float max[2], sum[2];
  float o[kParts][4];

  __device__ __forceinline__ void Clear() {
    max[0] = max[1] = -INFINITY;
    sum[0] = sum[1] = 0;
#pragma unroll
    for (int i = 0; i < kParts * 4; ++i) o[i / 4][i % 4] = 0;
  }
  // *this becomes the node whose children are `left` and *this.
  __device__ __forceinline__ void MergeLeft(const Partial& left) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Weights weights = ChildWeights(left.max[half], max[half]);
      max[half] = weights.max;
      sum[half] = Blend(weights, left.sum[half], sum[half]);
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
#pragma unroll
        for (int i = half * 2; i < half * 2 + 2; ++i) {
          o[part][i] = Blend(weights, left.o[part][i], o[part][i]);
        }
      }
    }
  }
};

// The nodes of a block's tree that wait for their right sibling, by level. Those of the upper
// levels are rarely used: indexed at run time, they lie in local memory and not in registers.
template <int kDv>
struct LowerNodes {
  Partial<kDv> leaf, pair;
};
template <int kDv>
struct UpperNodes {
  Partial<kDv> nodes[2];
};

// Takes leaf number `visit` in the tree's order; afterwards `leaf` is the largest node that it
// completes.
template <int kDv>
__device__ __forceinline__ void AddLeaf(int visit, Partial<kDv>& leaf, LowerNodes<kDv>& lower,
                                        UpperNodes<kDv>& upper) {
  if ((visit & 1) == 0) {
    lower.leaf = leaf;
    return;
  }
  leaf.MergeLeft(lower.leaf);
  if ((visit & 2) == 0) {
    lower.pair = leaf;
    return;
  }
  leaf.MergeLeft(lower.pair);
  int level = 0;
#pragma unroll 1
  for (; (visit >> (level + 2)) & 1; ++level) leaf.MergeLeft(upper.nodes[level]);
  if (level < 2) upper.nodes[level] = leaf;
}

// Shared memory that a tile needs besides its rows.
template <typename T>
struct TileScratch {
  alignas(16) T prob[kHeads * kProbStride];  // probabilities by place, the A operand
  alignas(16) float top[kHeads][kWarps];
  alignas(16) float sum[kHeads][kWarps];
  // Worker::ShareSums: of two neighbouring chunks, sums of rows 2 and 3; and the probabilities of
  // the first row of the second half.
  float2 last_rows[2][kHeads][kHalfChunks / 2];
  float first_row[kHeads];
};

// A tile: 64 rows of K, then as many of V. Behind every 4 rows, a chunk, are 16 bytes, so that the
// same row of 8 neighbouring chunks is what ldmatrix reads without a bank conflict. The products
// take rows in that order: place 8 * (4 * half + r) + c has row r of chunk 8 * half + c.
template <int kDim>
inline constexpr int kRowBytes = kDim * 2;
template <int kDim>
inline constexpr int kChunkBytes = kChunkRows* kRowBytes<kDim> + 16;
template <int kDim>
inline constexpr int kRowsBytes = 2 * kHalfChunks* kChunkBytes<kDim>;  // of a tile's K, or V
template <int kDk, int kDv>
inline constexpr int kTileBytes = kRowsBytes<kDk> + kRowsBytes<kDv>;

__host__ __device__ constexpr int ChunkAt(unsigned place) {
  return place / 32 * kHalfChunks + place % kHalfChunks;
}
__host__ __device__ constexpr int RowInChunkAt(unsigned place) { return place / 8 % kChunkRows; }
__host__ __device__ constexpr int RowAt(unsigned place) {
  return ChunkAt(place) * kChunkRows + RowInChunkAt(place);
}
template <int kDim>
__host__ __device__ constexpr int OffsetAt(unsigned place) {
  return ChunkAt(place) * kChunkBytes<kDim> + RowInChunkAt(place) * kRowBytes<kDim>;
}

// Starts copying this warp's rows of K and V: lane i's `index` is the row of the cache that becomes
// row i % 16 of them, -1 = none. The copies and one arrival of every warp complete the barrier
// `full`. Rows that are none have V of 0 and any K: whoever attends the tile masks their scores.
template <int kDk, int kDv>
__device__ __forceinline__ void LoadTile(const PagedRows& kv, int32_t index, uint32_t tile,
                                         uint32_t full, int warp, int lane, uint64_t policy) {
  constexpr unsigned kRows = (1u << kWarpRows) - 1, kFirstRows = kRows / 0xf;  // 0x1111
  const uint32_t keys = tile + warp * (kWarpRows / kChunkRows) * kChunkBytes<kDk>;
  const uint32_t values =
      tile + kRowsBytes<kDk> + warp * (kWarpRows / kChunkRows) * kChunkBytes<kDv>;
  const int chunk = lane / kChunkRows % kChunkRows, row = lane % kChunkRows;
  const auto copy = [&](int32_t first, int chunk, int row, int num_rows, bool is_value) {
    const int64_t from = first;
    if (is_value) {
      LoadBulk(values + chunk * kChunkBytes<kDv> + row * kRowBytes<kDv>,
               static_cast<const char*>(kv.v) + from * kRowBytes<kDv>, num_rows * kRowBytes<kDv>,
               full, policy);
    } else {
      LoadBulk(keys + chunk * kChunkBytes<kDk> + row * kRowBytes<kDk>,
               static_cast<const char*>(kv.k) + from * kRowBytes<kDk>, num_rows * kRowBytes<kDk>,
               full, policy);
    }
  };
  const unsigned there = __ballot_sync(kFullMask, index >= 0) & kRows;
  const int32_t first = __shfl_sync(kFullMask, index, lane - row);
  unsigned whole = __ballot_sync(kFullMask, first >= 0 && index == first + row) & kRows;
  whole &= whole >> 1, whole &= whole >> 2, whole &= kFirstRows;  // bit 4 i: chunk i
#pragma unroll 1
  for (unsigned none = there ^ kRows; none != 0; none &= none - 1) {
    const int i = __ffs(static_cast<int>(none)) - 1;
    const uint32_t to =
        values + i / kChunkRows * kChunkBytes<kDv> + i % kChunkRows * kRowBytes<kDv>;
    if (lane < kDv / 8) StoreShared16(to + lane * 16, {0, 0, 0, 0});
    FenceAsyncShared();
  }
  __syncwarp();
  ExpectForWarp(lane, full, __popc(there) * (kRowBytes<kDk> + kRowBytes<kDv>));
  __syncwarp();
  const int32_t chunk_first = __shfl_sync(kFullMask, index, row * kChunkRows);
  if (lane < 2 * kChunkRows && ((whole >> (row * kChunkRows)) & 1)) {
    copy(chunk_first, row, 0, kChunkRows, lane >= kChunkRows);
  }
  if (whole != kFirstRows && index >= 0 && !((whole >> (chunk * kChunkRows)) & 1)) {
    copy(index, chunk, row, 1, lane >= kWarpRows);
  }
}

// Scores of the group's heads by this warp's rows; s[n] are those of places n * 8 ... Even and odd
// steps add up apart, so that twice as many products are on their way.
template <typename T, int kDk>
__device__ __forceinline__ void Scores(const uint32_t (&q)[kDk / 16][4], uint32_t k_tile, int warp,
                                       int lane, float (&s)[2][4]) {
  const int place = warp * kWarpRows + (lane >> 4) * 8 + (lane & 7), half = (lane >> 3) & 1;
  const uint32_t row = k_tile + OffsetAt<kDk>(place) + half * 16;
  float odd[2][4];
#pragma unroll
  for (int i = 0; i < 8; ++i) s[i / 4][i % 4] = odd[i / 4][i % 4] = 0;
#pragma unroll
  for (int step = 0; step < kDk / 16; ++step) {
    uint32_t b[4];
    LoadMatrix4(b, row + step * 32);
    Mma16x8x16<T>(step % 2 == 0 ? s[0] : odd[0], q[step], b[0], b[1]);
    Mma16x8x16<T>(step % 2 == 0 ? s[1] : odd[1], q[step], b[2], b[3]);
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) s[i / 4][i % 4] += odd[i / 4][i % 4];
}

// o += p v in this warp's dims.
template <typename T, int kDv>
__device__ __forceinline__ void AddValues(const T* prob, uint32_t v_tile, int warp, int lane,
                                          Partial<kDv>& partial) {
  constexpr int kParts = Partial<kDv>::kParts;
  static_assert(kParts % 2 == 0);
  const uint32_t a_address = SharedAddress(prob + (lane & 15) * kProbStride + (lane >> 4) * 8);
  const uint32_t column = (warp * kParts + (lane >> 4)) * 16;
  const uint32_t b_address = v_tile + OffsetAt<kDv>(lane & 15) + column;
#pragma unroll
  for (int step = 0; step < kTileRows / 16; ++step) {
    uint32_t a[4];
    LoadMatrix4(a, a_address + step * 32);
#pragma unroll
    for (int part = 0; part < kParts; part += 2) {
      uint32_t b[4];
      LoadMatrix4Transposed(b, b_address + OffsetAt<kDv>(step * 16) + part * 16);
      Mma16x8x16<T>(partial.o[part], a, b[0], b[1]);
      Mma16x8x16<T>(partial.o[part + 1], a, b[2], b[3]);
    }
  }
}

// Adds rows [begin, end) of `tile` to `partial`. The whole warpgroup calls it together, once the
// tile is there. share(p) is called with the probabilities of this warp's places n * 8 ... in p[n],
// relative to partial.max, collect() when all warps have shared. When a warp returns it has left
// the tile.
template <typename T, int kDk, int kDv, typename Share, typename Collect>
__device__ __forceinline__ void AttendTile(const uint32_t (&q)[kDk / 16][4], uint32_t tile,
                                           int begin, int end, float scale_log2,
                                           TileScratch<T>& scratch, Partial<kDv>& partial,
                                           const Share& share, const Collect& collect) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int head = lane >> 2, place = warp * kWarpRows + (lane & 3) * 2;
  float p[2][4];
  Scores<T, kDk>(q, tile, warp, lane, p);
  if (begin > 0 || end < kTileRows) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int r = RowAt(place + i / 4 * 8 + (i & 1));
      if (r < begin || r >= end) p[i / 4][i % 4] = -INFINITY;
    }
  }
  float top[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    top[half] =
        fmaxf(fmaxf(p[0][half * 2], p[0][half * 2 + 1]), fmaxf(p[1][half * 2], p[1][half * 2 + 1]));
  }
#pragma unroll
  for (int step = 1; step < 4; step *= 2) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      top[half] = fmaxf(top[half], __shfl_xor_sync(kFullMask, top[half], step));
    }
  }
  if ((lane & 3) == 0) {
    scratch.top[head][warp] = top[0] * scale_log2;
    scratch.top[head + 8][warp] = top[1] * scale_log2;
  }
  SyncAttending();
  float factor[2], sum[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const auto tops = *reinterpret_cast<const float4*>(scratch.top[head + half * 8]);
    const float max = fmaxf(partial.max[half], fmaxf(fmaxf(tops.x, tops.y), fmaxf(tops.z, tops.w)));
    const float shift = max == -INFINITY ? 0 : max;
    factor[half] = Exp2(partial.max[half] - shift);
    partial.max[half] = max;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      p[n][half * 2] = Exp2(__fmaf_rn(p[n][half * 2], scale_log2, -shift));
      p[n][half * 2 + 1] = Exp2(__fmaf_rn(p[n][half * 2 + 1], scale_log2, -shift));
    }
    sum[half] = (p[0][half * 2] + p[0][half * 2 + 1]) + (p[1][half * 2] + p[1][half * 2 + 1]);
  }
#pragma unroll
  for (int step = 1; step < 4; step *= 2) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum[half] += __shfl_xor_sync(kFullMask, sum[half], step);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    T* const prob = scratch.prob + (head + half * 8) * kProbStride + place;
    *reinterpret_cast<uint32_t*>(prob) = PackPair<T>(p[0][half * 2], p[0][half * 2 + 1]);
    *reinterpret_cast<uint32_t*>(prob + 8) = PackPair<T>(p[1][half * 2], p[1][half * 2 + 1]);
  }
  if ((lane & 3) == 0) {
    scratch.sum[head][warp] = sum[0];
    scratch.sum[head + 8][warp] = sum[1];
  }
  share(p);
  SyncAttending();
  collect();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const auto sums = *reinterpret_cast<const float4*>(scratch.sum[head + half * 8]);
    partial.sum[half] =
        __fmaf_rn(partial.sum[half], factor[half], (sums.x + sums.y) + (sums.z + sums.w));
#pragma unroll
    for (int part = 0; part < Partial<kDv>::kParts; ++part) {
      partial.o[part][half * 2] *= factor[half];
      partial.o[part][half * 2 + 1] *= factor[half];
    }
  }
  AddValues<T, kDv>(scratch.prob, tile + kRowsBytes<kDk>, warp, lane, partial);
}

}  // namespace nsa::cuda::fused_decode
