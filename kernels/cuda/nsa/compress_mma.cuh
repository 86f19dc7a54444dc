#pragma once
// The products of inputs and units on the tensor cores, 16-bit weights. The inputs of a unit are
// summed in four quarters, and the quarters in ascending order, so that all kernels give the same
// bits.

#include <cstdint>

#include "kernels/cuda/nsa/compress.cuh"
#include "kernels/cuda/ptx/mma.cuh"

namespace nsa::cuda {

inline constexpr int kQuarters = 4;
inline constexpr int kStepInputs = 256;  // of a warp: weights in its registers at a time
inline constexpr int kLoadInputs = 8;    // 16 bytes
inline constexpr int kBlockInputs = 32;  // a lane's 8, times the 4 lanes of a unit: two products
// Between staged rows, so that neighbours are 16 banks apart: a quarter warp's 16-byte loads of two
// rows do not collide.
inline constexpr int kRowPadding = 32;

// Products of 256 staged inputs with a warp's 8 units. In a block of 32 inputs lane 4 g + t holds
// inputs 8 t .. 8 t + 7 of unit g, and of rows g and g + 8: the first and the last four of them are
// one product each. (Which input is which k of the product does not matter.) inputs: rows of
// `stride` elements, of which num_rows are there; what the sums of others are does not matter.
template <typename W, int kTiles>
__device__ __forceinline__ void MultiplyStep(const W* inputs, int stride, int num_rows,
                                             const uint4 (&weights)[kStepInputs / kBlockInputs],
                                             float (&sums)[kTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int block = 0; block < kStepInputs / kBlockInputs; ++block) {
    const W* const column = inputs + block * kBlockInputs + t * kLoadInputs;
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      if (m > 0 && m * 16 >= num_rows) break;
      const auto row = [&](int r) {
        return *reinterpret_cast<const uint4*>(column + min(r, num_rows - 1) * stride);
      };
      const uint4 low = row(m * 16 + g), high = row(m * 16 + g + 8);
      const uint4& w = weights[block];
      Mma16x8x16<W>(sums[m], {low.x, high.x, low.y, high.y}, w.x, w.y);
      Mma16x8x16<W>(sums[m], {low.z, high.z, low.w, high.w}, w.z, w.w);
    }
  }
}

}  // namespace nsa::cuda
