#pragma once
// From the probabilities of a tile to block importances, in the registers of a warp
// (prefill_compressed.cu): its 16 rows are the heads of one token, and a thread has those of two
// heads as wgmma leaves them.

#include <cstdint>

#include "kernels/cuda/device/reduce.cuh"

namespace nsa::cuda {

// How blocks are made of rows: a page, which is a block, holds kRows rows, and a row's span covers
// kSpan strides. Blocks get the rows of their page and, where spans overlap, the next page's first.
template <int kRows, int kSpan>
struct Geometry {
  static_assert((kRows == 4 && kSpan <= 2) || (kRows == 1 && kSpan == 1));
  static constexpr int kPageRows = kRows;
  static constexpr bool kOverlap = kSpan > 1;
};

// Sums x over the 8 lanes that differ in bits 2 to 4 and scatters the sums: lane l gets that of
// element l / 4. A fixed order of additions.
template <int kBit, int kCount>
__device__ __forceinline__ void SumStep(float (&x)[8]) {
  const bool upper = threadIdx.x & kBit;
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) {
    const float sent = upper ? x[i] : x[i + kCount / 2];
    const float kept = upper ? x[i + kCount / 2] : x[i];
    x[i] = kept + __shfl_xor_sync(kAllLanes, sent, kBit);
  }
}
__device__ __forceinline__ float SumHeads(float (&x)[8]) {
  SumStep<16, 8>(x);
  SumStep<8, 4>(x);
  SumStep<4, 2>(x);
  return x[0];
}

// The importances of the 64 rows of one tile, which begin at a page: first this thread's two heads,
// later, when the sums over lanes fall into other work, all.
template <typename G>
class TileImportances {
 public:
  static constexpr int kBlocks = 64 / G::kPageRows;

  // Takes the tile's probabilities. `first`: the index of its first block's importance, or -1.
  __device__ __forceinline__ void Take(const float (&s)[32], int32_t first) {
    index_ = first;
    // Weights 1 1 1 1, or with overlapping spans 1 2 2 2 and 1 for the first row of the next block.
    // Two lanes have half a block each.
    const float weight = G::kOverlap && threadIdx.x % 2 == 0 ? 0.5f : 1.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      first_[i] = s[4 * i] + s[4 * i + 2];
      sum_[i] = s[4 * i + 1] + s[4 * i + 3];
      if constexpr (G::kPageRows > 1) sum_[i] = fmaf(weight, first_[i], sum_[i]);
    }
  }
  // Writes them to `all`, unless their index is -1. `next`: what the first row of the tile after
  // adds to the last block; it becomes what this tile's first row adds to the block before.
  __device__ __forceinline__ void Store(float* all, float& next) {
    const int lane = threadIdx.x % 32;
    if constexpr (G::kPageRows == 1) {
      const float2 both = {SumHeads(first_), SumHeads(sum_)};
      if (index_ >= 0) reinterpret_cast<float2*>(all + index_)[lane] = both;
    } else {
      float sum = SumHeads(sum_);
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      if constexpr (G::kOverlap) {
        // The next block's first row is two lanes away.
        const float first = __shfl_sync(kAllLanes, SumHeads(first_), (lane + 2) % 32);
        sum = fmaf(2.0f, sum, lane < 30 ? first : next);
        next = first;
      }
      if (index_ >= 0 && lane % 2 == 0) all[index_ + lane / 2] = sum;
    }
  }

 private:
  float first_[8] = {}, sum_[8] = {};  // of groups of 8 rows: this thread's first, its weighted sum
  int32_t index_ = -1;
};

}  // namespace nsa::cuda
