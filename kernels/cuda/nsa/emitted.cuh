#pragma once
// Which tokens of a step complete a span.

#include <cstdint>

#include "kernels/cuda/device/reduce.cuh"
#include "kernels/nsa_shape.h"

namespace nsa::cuda {

// The most rows that a step can emit, whatever its positions.
inline int64_t MaxEmitted(const NsaShape& shape, int64_t num_tokens, int64_t num_seqs) {
  const int64_t by_stride = (num_tokens + num_seqs * (shape.span_stride - 1)) / shape.span_stride;
  return by_stride < num_tokens ? by_stride : num_tokens;
}

// Fills tokens[0 .. num) with the step's emitting tokens number first .. first + num - 1, in the
// order of the step; returns num <= max_num. All threads of the block call it and get the result;
// `warp_counts` holds kMaxWarps elements. Ends with a barrier.
__device__ inline int FindEmitted(const NsaShape& shape, const int32_t* positions,
                                  int64_t num_tokens, int64_t first, int max_num, int32_t* tokens,
                                  int32_t* warp_counts) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int num_warps = static_cast<int>(blockDim.x) / kWarpThreads;
  int64_t num_before = 0;
  for (int64_t base = 0; base < num_tokens && num_before < first + max_num; base += blockDim.x) {
    const int64_t token = base + threadIdx.x;
    const int32_t position = token < num_tokens ? positions[token] : -1;
    const bool emits = position >= 0 && shape.CompletesSpan(position);
    const uint32_t lanes = __ballot_sync(kAllLanes, emits);
    if (lane == 0) warp_counts[warp] = __popc(lanes);
    __syncthreads();
    int64_t place = num_before + __popc(lanes & ((1U << lane) - 1)) - first;
    for (int i = 0; i < num_warps; ++i) {
      if (i < warp) place += warp_counts[i];
      num_before += warp_counts[i];
    }
    if (emits && place >= 0 && place < max_num) tokens[place] = static_cast<int32_t>(token);
    __syncthreads();
  }
  const int64_t num = num_before - first;
  return static_cast<int>(num < 0 ? 0 : num > max_num ? max_num : num);
}

}  // namespace nsa::cuda
