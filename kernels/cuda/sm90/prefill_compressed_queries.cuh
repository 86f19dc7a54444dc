#pragma once
// The query side of Q K^T in the prefill kernels: 64 rows of a warpgroup against a tile of K.

#include <cstdint>

#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/ptx/wgmma.cuh"

namespace nsa::cuda {

struct Nothing {
  __device__ __forceinline__ void operator()(int, int) const {}
};

// Q and K lie in shared memory as slices of 64 columns, that is rows of 128 swizzled bytes; Q's
// slices have kRows rows, K's have as many as s has columns. The queries stay in registers, which
// saves a third of the reads of shared memory, unless they are too wide to fit beside the
// accumulators; their shared memory is free then once the first product has ended.
template <typename T, int kDk, int kRows, bool kInRegisters>
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

template <typename T, int kDk, int kRows>
struct Queries<T, kDk, kRows, false> {
  uint32_t address;

  __device__ __forceinline__ void Load(uint32_t q, int first_row) { address = q + first_row * 128; }
  template <int kScores, typename F = Nothing>
  __device__ __forceinline__ void IssueScores(float (&s)[kScores], uint32_t k,
                                              F&& meanwhile = {}) const {
    constexpr int kTileRows = kScores * 2;
    const uint64_t a = DescribeKMajor(address), b = DescribeKMajor(k);
#pragma unroll
    for (int step = 0; step < kDk / 16; ++step) {
      const uint64_t inner = step % 4 * 2;
      Wgmma<T, kTileRows, Layout::kKMajor>::Shared(s, a + (step / 4 * kRows * 128 >> 4) + inner,
                                                   b + (step / 4 * kTileRows * 128 >> 4) + inner,
                                                   step > 0);
      meanwhile(step, kDk / 16);
    }
    CommitWgmma();
  }
};

}  // namespace nsa::cuda
