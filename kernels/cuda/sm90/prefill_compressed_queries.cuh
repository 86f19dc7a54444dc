#pragma once
// The query side of Q K^T in prefill_compressed.cu: 64 rows of a warpgroup against a tile of K.

#include <cstdint>

#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/ptx/wgmma.cuh"

namespace nsa::cuda {

struct Nothing {
  __device__ __forceinline__ void operator()(int, int) const {}
};

// Q and K lie in shared memory as slices of 64 columns, that is rows of 128 swizzled bytes; Q's
// slices have kRows rows, K's have as many as s has columns. The queries stay in registers, which
// saves half of the reads of shared memory; their own is free once the first product has ended.
template <typename T, int kDk, int kRows>
struct Queries {
  uint32_t a[kDk / 16][4];

  // `q`: the address of Q; `first_row`: of this warpgroup.
  __device__ __forceinline__ void Load(uint32_t q, int first_row) {
    const int lane = threadIdx.x % 32;
    const int row = first_row + threadIdx.x % 128 / 32 * 16 + lane % 16;
#pragma unroll
    for (int step = 0; step < kDk / 16; ++step) {
      const int chunk = step % 4 * 2 + lane / 16;
      LoadMatrix4(a[step], q + (step / 4 * kRows + row) * 128 + (chunk ^ (row % 8)) * 16);
    }
  }
  // The squared norms of rows lane / 4 and + 8 of this warp: the diagonal of Q Q^T.
  __device__ __forceinline__ float2 Squares() const {
    float low[4] = {}, high[4] = {};
#pragma unroll
    for (int step = 0; step < kDk / 16; ++step) {
      Mma16x8x16<T>(low, a[step], a[step][0], a[step][2]);
      Mma16x8x16<T>(high, a[step], a[step][1], a[step][3]);
    }
    const int row = threadIdx.x % 32 / 4, holder = row * 4 + row / 2;
    return {__shfl_sync(0xffffffffu, row % 2 == 0 ? low[0] : low[1], holder),
            __shfl_sync(0xffffffffu, row % 2 == 0 ? high[2] : high[3], holder)};
  }
  // s = Q K^T, issued only. A product waits for its place in the queue, more so with operands in
  // registers: `meanwhile(step, num_steps)` is called after each.
  template <int kScores, typename F = Nothing>
  __device__ __forceinline__ void IssueScores(float (&s)[kScores], uint32_t k,
                                              F&& meanwhile = {}) const {
    constexpr int kTileRows = kScores * 2;
    const uint64_t b = DescribeKMajor(k);
#pragma unroll
    for (int step = 0; step < kDk / 16; ++step) {
      const uint64_t offset = (step / 4 * kTileRows * 128 >> 4) + step % 4 * 2;
      Wgmma<T, kTileRows, Layout::kKMajor>::Registers(s, a[step], b + offset, step > 0);
      meanwhile(step, kDk / 16);
    }
    CommitWgmma();
  }
};

}  // namespace nsa::cuda
