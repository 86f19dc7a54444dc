#pragma once
// From a tile of scores to block importances, in the registers of a warp (prefill_select.cu): every
// thread holds scores of four heads of one token, in two parts of 64 accumulators.

#include <cstdint>

#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/sm90/prefill_compressed_items.cuh"
#include "kernels/cuda/sm90/prefill_select_best.cuh"

namespace nsa::cuda {

inline constexpr int kTileRows = kPrefillTileRows;
inline constexpr int kParts = 2;

// How blocks are made of rows: a page, which is a block, holds kRows paged rows, and a row's span
// covers kSpan strides. Paged row u of the model is row u - (kSpan - 1) of PrefillRows.
template <int kRows, int kSpan>
struct Geometry {
  static_assert((kRows == 4 && kSpan <= 2) || (kRows == 1 && kSpan == 1));
  static constexpr int kPageRows = kRows;
  static constexpr int kOffset = kSpan - 1;
  static constexpr int kTileBlocks = kTileRows / kRows;

  // Tiles of paged rows that an item's importances need; 0 if none of its tokens has to choose.
  static __device__ int NumTiles(const SelectRule& rule, const Item& item) {
    const int own = item.last_position() / rule.block_tokens;
    if (own < rule.num_selected || rule.NumFree() == 0) return 0;
    const int num_rows = kRows * (own - rule.num_local + 1) + kOffset;
    return (num_rows + kTileRows - 1) / kTileRows;
  }
};

// Sums x over the 4 lanes that differ in bits 2 and 3 and scatters the sums: lane l gets those of
// the 4 elements from l / 4 % 4 * 4 on. A fixed order of additions.
inline constexpr int kGroups8 =
    kTileRows / 8;  // groups of 8 columns, of which a thread has 2 columns each
template <int kBit, int kCount>
__device__ __forceinline__ void SumStep(float (&x)[kGroups8]) {
  const bool upper = threadIdx.x & kBit;
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) {
    const float sent = upper ? x[i] : x[i + kCount / 2];
    const float kept = upper ? x[i + kCount / 2] : x[i];
    x[i] = kept + __shfl_xor_sync(kAllLanes, sent, kBit);
  }
}
__device__ __forceinline__ void SumHeads(float (&x)[kGroups8]) {
  SumStep<8, kGroups8>(x);
  SumStep<4, kGroups8 / 2>(x);
}

// What a thread knows of its token in one item.
struct Token {
  float lse_log2[kParts][2];  // of its heads
  int num_visible;            // paged rows below this are visible
  int min_visible;            // over the item
  float* importance;
  float unfinished;  // sum so far of the last block of the previous tile, where lane % 16 == 14
};

template <typename G>
__device__ __forceinline__ void Mask(float (&s)[kTileRows / 2], const Token& token, int tile) {
  const int column = tile * kTileRows + threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < kTileRows / 2; ++i) {
    const int row = column + i / 4 * 8 + i % 2;
    if (row < G::kOffset || row >= token.num_visible) s[i] = -INFINITY;
  }
}

// Scores become probabilities. x and y get, or with kAdd are increased by, the sums over this
// thread's heads of a part: of its first and of its second column in each group of 8.
template <typename G, bool kAdd>
__device__ __forceinline__ void AddProbabilities(float (&s)[kTileRows / 2], const Token& token,
                                                 const float (&lse_log2)[2], int tile,
                                                 float scale_log2, float (&x)[kGroups8],
                                                 float (&y)[kGroups8]) {
  if ((tile + 1) * kTileRows > token.min_visible || (G::kOffset > 0 && tile == 0)) {
    Mask<G>(s, token, tile);
  }
#pragma unroll
  for (int i = 0; i < kTileRows / 2; ++i) {
    s[i] = Exp2(fmaf(s[i], scale_log2, -lse_log2[i / 2 % 2]));
  }
#pragma unroll
  for (int i = 0; i < kGroups8; ++i) {
    const float first = s[4 * i] + s[4 * i + 2], second = s[4 * i + 1] + s[4 * i + 3];
    x[i] = kAdd ? x[i] + first : first;
    y[i] = kAdd ? y[i] + second : second;
  }
}

// Pages of one row: every row is a block.
template <typename G>
__device__ __forceinline__ void StoreRows(float (&x)[kGroups8], float (&y)[kGroups8], float* out) {
  SumHeads(x);
  SumHeads(y);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    reinterpret_cast<float2*>(out)[(threadIdx.x / 4 % 4 * 4 + i) * 4 + threadIdx.x % 4] = {x[i],
                                                                                           y[i]};
  }
}

// Pages of four rows: weights 1 1 1 1, or with overlapping spans 1 2 2 2 and 1 for the first row of
// the next block.
template <typename G>
__device__ __forceinline__ void StoreBlocks(float (&x)[kGroups8], float (&y)[kGroups8],
                                            Token& token, int tile, float* out) {
  constexpr bool kOverlap = G::kOffset > 0;
  const int lane = threadIdx.x % 32;
  const bool second = lane & 2;  // of the two blocks in 8 columns; two lanes have half a block each
  const float weight = kOverlap && lane % 2 == 0 ? 0.5f : 1.0f;
  float half[kGroups8];
#pragma unroll
  for (int i = 0; i < kGroups8; ++i) half[i] = fmaf(weight, x[i], y[i]);
  SumHeads(half);
  float sum[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) sum[i] = half[i] + __shfl_xor_sync(kAllLanes, half[i], 1);
  if constexpr (kOverlap) {
    SumHeads(x);
    // The first row of the next block is two lanes away, for the second block in the next group.
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      const float next = __shfl_xor_sync(kAllLanes, second ? x[i] : x[i + 1], 2);
      sum[i] = fmaf(2.0f, sum[i], next);
    }
    const float next =
        __shfl_sync(kAllLanes, second ? x[3] : x[0], (lane + 2) % 16 + lane / 16 * 16);
    const bool last = lane % 16 == 14;
    if (last && tile > 0) out[-1] = token.unfinished + next;
    token.unfinished = 2.0f * sum[3];
    sum[3] = fmaf(2.0f, sum[3], next);
  }
  if (lane % 2 == 0) {
    float* first = out + lane / 4 % 4 * 8 + (second ? 1 : 0);
#pragma unroll
    for (int i = 0; i < 4; ++i) first[2 * i] = sum[i];
  }
}

}  // namespace nsa::cuda
