#pragma once
// From the weights of a tile of rows to what they add to their blocks, in the registers of a warp
// (prefill_compressed.cu): its 16 rows of scores are the heads of one token, and a thread has those
// of two heads. As PrefillRows deals rows out, lane % 4 = c has rows 16 c to 16 c + 15 of a tile.

#include <cstdint>

#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/sm90/prefill_compressed_rows.h"

namespace nsa::cuda {

// How blocks are made of rows: a page, which is a block, holds kRows rows, and a row's span covers
// kSpan strides. Blocks get the rows of their page and, where spans overlap, the next page's first:
// weights 1 1 1 1, or 1 2 2 2 and 1.
template <int kRows, int kSpan>
struct Geometry {
  static_assert((kRows == 4 && kSpan <= 2) || (kRows == 1 && kSpan == 1));
  static constexpr int kPageRows = kRows;
  static constexpr bool kOverlap = kSpan > 1;
  static constexpr int kTileBlocks = static_cast<int>(kPrefillTileRows) / kRows;
  static constexpr int kLaneBlocks = kTileBlocks / 4;
};

// One head: what a thread's blocks get of its 16 weights, w[4 j + 2 half + 0..1] of columns
// 8 j + 2 c + 0..1. `next`: the first weight of the tile after, which c = 3 needs; it becomes this
// tile's. All of it is added to `sum`. All lanes.
template <typename G>
__device__ __forceinline__ void SumBlocks(const float (&w)[kPrefillTileRows / 2], int half,
                                          float& sum, float& next,
                                          float (&blocks)[G::kLaneBlocks]) {
  if constexpr (G::kPageRows == 1) {
#pragma unroll
    for (int i = 0; i < 16; ++i) blocks[i] = w[i / 2 * 4 + 2 * half + i % 2];
  } else {
    float first[4], others[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = 8 * i + 2 * half;
      first[i] = w[at];
      others[i] = w[at + 1] + (w[at + 4] + w[at + 5]);
    }
    if constexpr (G::kOverlap) {
      const int lane = threadIdx.x % 32;
      const float after = __shfl_sync(kAllLanes, first[0], lane / 4 * 4 + (lane + 1) % 4);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float following = i < 3 ? first[i + 1] : lane % 4 == 3 ? next : after;
        blocks[i] = fmaf(2.0f, others[i], first[i] + following);
      }
      next = after;
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) blocks[i] = first[i] + others[i];
    }
  }
#pragma unroll
  for (int i = 0; i < G::kLaneBlocks; i += 4) {
    sum += (blocks[i] + blocks[i + 1]) + (blocks[i + 2] + blocks[i + 3]);
  }
}

// A thread's part of the sum of a head's weights, once the first tile is through: where spans
// overlap, blocks have got every weight twice but the very first one.
template <typename G>
__device__ __forceinline__ float SumOfWeights(float sum, float next) {
  if constexpr (!G::kOverlap) return sum;
  return 0.5f * (threadIdx.x % 4 == 3 ? sum + next : sum);
}

}  // namespace nsa::cuda
