#pragma once
// A warpgroup's 64 query rows against kRows rows of K and V (one page of 64, or two), both in
// shared memory as the copy engine writes them: boxes of 64 columns, 128-byte swizzled. Rows and
// registers are those of wgmma.cuh: with g = lane / 4, a thread holds parts of rows g and g + 8 of
// its warp's 16 rows. Array sizes follow from kRows: kRows / 2 scores per thread.

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/ptx/wgmma.cuh"

namespace nsa::cuda {

inline constexpr int kPageRows = 64;
inline constexpr int kBoxColumns = 64;
inline constexpr int kPageBoxBytes = kPageRows * kBoxColumns * 2;
inline constexpr int kPageScores = kPageRows / 2;
inline constexpr float kNegativeInfinity = -INFINITY;

// Issues scores = Q K^T as one group. `q`: the warpgroup's rows in the first of its boxes, which
// are kQueryBoxBytes apart.
template <typename T, int kDk, int kQueryBoxBytes, int kNumScores>
__device__ __forceinline__ void IssueScores(float (&scores)[kNumScores], uint32_t q, uint32_t k) {
  constexpr int kRows = kNumScores * 2;
  constexpr int kRowsBoxBytes = kRows * kBoxColumns * 2;
  const uint64_t q_tile = DescribeKMajor(q), k_tile = DescribeKMajor(k);
  FenceWgmma();
#pragma unroll
  for (int step = 0; step < kDk / 16; ++step) {
    const int box = step / 4, inside = step % 4 * 2;
    Wgmma<T, kRows, Layout::kKMajor>::Shared(scores, q_tile + box * (kQueryBoxBytes >> 4) + inside,
                                             k_tile + box * (kRowsBoxBytes >> 4) + inside,
                                             step > 0);
  }
  CommitWgmma();
}

// Issues out (+)= P V as one group, where `weights` hold P as a left operand, 16 rows of V a step.
// Rows before first_row and from end_row on have no weight; if it accumulates, their steps are left
// out.
template <typename T, int kDv, int kSteps>
__device__ __forceinline__ void IssueValues(float (&out)[kDv / 2],
                                            const uint32_t (&weights)[kSteps][4], uint32_t v,
                                            bool accumulate, int first_row = 0,
                                            int end_row = kSteps * 16) {
  const uint64_t v_tile = DescribeMnMajor(v, kSteps * 16 * kBoxColumns * 2);
  FenceWgmma();
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    if (accumulate && (step * 16 + 16 <= first_row || step * 16 >= end_row)) continue;
    Wgmma<T, kDv, Layout::kMnMajor>::Registers(out, weights[step], v_tile + 128 * step,
                                               accumulate || step > 0);
  }
  CommitWgmma();
}

// Largest score of rows g (half 0) and g + 8 (half 1).
template <int kNumScores>
__device__ __forceinline__ void MaxOfRows(const float (&scores)[kNumScores], float (&top)[2]) {
  top[0] = top[1] = kNegativeInfinity;
#pragma unroll
  for (int i = 0; i < kNumScores; i += 4) {
    top[0] = fmaxf(top[0], fmaxf(scores[i], scores[i + 1]));
    top[1] = fmaxf(top[1], fmaxf(scores[i + 2], scores[i + 3]));
  }
  top[0] = QuadMax(top[0]);
  top[1] = QuadMax(top[1]);
}

// scores = 2^(scores * scale - top), where top is in the scaled unit; sum[half] += this thread's.
template <int kNumScores>
__device__ __forceinline__ void Exponentiate(float (&scores)[kNumScores], float scale,
                                             const float (&top)[2], float (&sum)[2]) {
#pragma unroll
  for (int i = 0; i < kNumScores; i += 4) {
    scores[i] = Exp2(fmaf(scores[i], scale, -top[0]));
    scores[i + 1] = Exp2(fmaf(scores[i + 1], scale, -top[0]));
    scores[i + 2] = Exp2(fmaf(scores[i + 2], scale, -top[1]));
    scores[i + 3] = Exp2(fmaf(scores[i + 3], scale, -top[1]));
    sum[0] += scores[i] + scores[i + 1];
    sum[1] += scores[i + 2] + scores[i + 3];
  }
}

// Rounds probabilities to the left operand of the next product.
template <typename T, int kNumScores>
__device__ __forceinline__ void PackWeights(const float (&scores)[kNumScores],
                                            uint32_t (&weights)[kNumScores / 8][4]) {
#pragma unroll
  for (int i = 0; i < kNumScores; i += 2) {
    weights[i / 8][i % 8 / 2] = PackPair<T>(scores[i], scores[i + 1]);
  }
}

// Probabilities 2^(scores * scale - top) as PackWeights rounds them; `sum` is this thread's. Scores
// stay as they are.
template <typename T, int kNumScores>
__device__ __forceinline__ void WeighScores(const float (&scores)[kNumScores], float scale,
                                            const float (&top)[2],
                                            uint32_t (&weights)[kNumScores / 8][4],
                                            float (&sum)[2]) {
  sum[0] = sum[1] = 0;
#pragma unroll
  for (int i = 0; i < kNumScores; i += 2) {
    const int half = i / 2 % 2;
    const float low = Exp2(fmaf(scores[i], scale, -top[half]));
    const float high = Exp2(fmaf(scores[i + 1], scale, -top[half]));
    sum[half] += low + high;
    weights[i / 8][i % 8 / 2] = PackPair<T>(low, high);
  }
}

// Weights up to 2^this, and a sum of them, up to which none leaves its type's range.
template <typename T>
inline constexpr int kMaxWeightBits = std::is_same_v<T, __half> ? 14 : 60;
template <typename T>
inline constexpr float kMaxWeights = static_cast<float>(int64_t{1} << kMaxWeightBits<T>);

// Running maximum (scaled, base 2) and this thread's part of the sum of two rows. Once all rows of
// a warp are `set`, what comes later may be larger than their `top`, within kMaxWeights.
struct OnlineRows {
  float top[2] = {kNegativeInfinity, kNegativeInfinity};
  float sum[2] = {0, 0};
  bool set = false;

  __device__ __forceinline__ void FindSet() {
    set = __all_sync(0xffffffffu, top[0] > kNegativeInfinity && top[1] > kNegativeInfinity);
  }
};

// One step of the online softmax: moves rows to their new maximum and exponentiates in place. What
// was summed before has to be multiplied by `factor` (rows.sum is, here).
template <int kNumScores>
__device__ __forceinline__ void OnlineSoftmaxStep(float (&scores)[kNumScores], float scale,
                                                  OnlineRows& rows, float (&factor)[2]) {
  float top[2], base[2];
  MaxOfRows(scores, top);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    top[half] = fmaxf(rows.top[half], top[half] * scale);
    base[half] = top[half] == kNegativeInfinity ? 0.0F : top[half];  // nothing visible so far
    factor[half] = Exp2(rows.top[half] - base[half]);
    rows.top[half] = top[half];
    rows.sum[half] *= factor[half];
  }
  Exponentiate(scores, scale, base, rows.sum);
}

// Multiplies a thread's parts of two rows.
template <int kSize>
__device__ __forceinline__ void RescaleRows(float (&out)[kSize], const float (&factor)[2]) {
  if (__all_sync(0xffffffffu, factor[0] == 1.0F && factor[1] == 1.0F)) return;
#pragma unroll
  for (int i = 0; i < kSize; i += 4) {
    out[i] *= factor[0];
    out[i + 1] *= factor[0];
    out[i + 2] *= factor[1];
    out[i + 3] *= factor[1];
  }
}

// Weights of the next scores, and out rescaled where rows move to a new maximum, which they only do
// if they have to. All lanes of a warp.
template <typename T, int kNumScores, int kSize>
__device__ __forceinline__ void WeighNext(float (&scores)[kNumScores], float scale,
                                          OnlineRows& rows, uint32_t (&weights)[kNumScores / 8][4],
                                          float (&out)[kSize]) {
  if (rows.set) [[likely]] {
    float sum[2];
    WeighScores<T>(scores, scale, rows.top, weights, sum);
    const bool fits = sum[0] <= kMaxWeights<T> && sum[1] <= kMaxWeights<T>;
    if (__all_sync(0xffffffffu, fits)) [[likely]] {
      rows.sum[0] += sum[0];
      rows.sum[1] += sum[1];
      return;
    }
  }
  float factor[2];
  OnlineSoftmaxStep(scores, scale, rows, factor);
  RescaleRows(out, factor);
  PackWeights<T>(scores, weights);
  rows.FindSet();
}

// Makes scores of columns outside [begin, end) invisible.
template <int kNumScores>
__device__ __forceinline__ void MaskColumns(float (&scores)[kNumScores], int begin, int end) {
  const int column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < kNumScores; ++i) {
    const int c = i / 4 * 8 + column + i % 2;
    if (c < begin || c >= end) scores[i] = kNegativeInfinity;
  }
}

// Zeroes V's rows [first_row, kRows), which nobody may have written: 0 * NaN would be NaN. Called
// by a whole warpgroup, whose named barrier is `barrier`. Several warpgroups may do it to the same
// rows, each before its own product.
template <int kDv, int kRows>
__device__ __forceinline__ void ClearRowsFrom(uint8_t* v, int first_row, int barrier) {
  constexpr int kChunks = kBoxColumns * 2 / 16;  // of a row
  for (int box = 0; box < kDv / kBoxColumns; ++box) {
    auto* chunks = reinterpret_cast<uint4*>(v) + box * kRows * kChunks;
    for (int i = first_row * kChunks + threadIdx.x % 128; i < kRows * kChunks; i += 128) {
      chunks[i] = uint4{};
    }
  }
  FenceAsyncShared();
  SyncNamed(barrier, 128);
}

}  // namespace nsa::cuda
