#pragma once
// The value side of prefill_compressed.cu: weights of a tile of rows times its V, and the store of
// what they add up to. Registers are those of wgmma.cuh.

#include <cstdint>

#include "kernels/cuda/device/transpose_quad.cuh"
#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/ptx/wgmma.cuh"
#include "kernels/cuda/sm90/prefill_compressed_items.cuh"

namespace nsa::cuda {

inline constexpr int kTileRows = static_cast<int>(kPrefillTileRows);
inline constexpr int kScores = kTileRows / 2;  // of a thread

// Weights as left operands of the product with V.
template <typename T>
__device__ __forceinline__ void Pack(const float (&s)[kScores],
                                     uint32_t (&packed)[kTileRows / 16][4]) {
#pragma unroll
  for (int i = 0; i < kScores / 2; ++i) {
    packed[i / 4][i % 4] = PackPair<T>(s[2 * i], s[2 * i + 1]);
  }
}

// o (+)= P V of this warpgroup, issued only; `meanwhile` as for IssueScores.
template <typename T, int kDv, typename F>
__device__ __forceinline__ void IssueOutputs(float (&o)[kDv / 2],
                                             const uint32_t (&p)[kTileRows / 16][4], uint32_t v,
                                             bool accumulate, F&& meanwhile) {
  const uint64_t b = DescribeMnMajor(v, kTileRows * kRowBytes);
#pragma unroll
  for (int step = 0; step < kTileRows / 16; ++step) {
    Wgmma<T, kDv, Layout::kMnMajor>::Registers(o, p[step], b + 128 * step, accumulate || step > 0);
    meanwhile(step, kTileRows / 16);
  }
  CommitWgmma();
}

// Writes a token's outputs to `to`, 16 bytes a lane. `head`: the thread's first row there; -1:
// none.
template <typename T, int kDv>
__device__ __forceinline__ void StoreOutputs(void* to, int32_t head, const float (&o)[kDv / 2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    T* out = static_cast<T*>(to) + (int64_t{head} + 8 * half) * kDv + threadIdx.x % 4 * 8;
#pragma unroll
    for (int i = 0; i < kDv / 8; i += 4) {
      uint32_t x[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int at = 4 * (i + j) + 2 * half;
        x[j] = PackPair<T>(o[at], o[at + 1]);
      }
      TransposeQuad(x);
      if (head >= 0) *reinterpret_cast<uint4*>(out + i * 8) = {x[0], x[1], x[2], x[3]};
    }
  }
}

}  // namespace nsa::cuda
