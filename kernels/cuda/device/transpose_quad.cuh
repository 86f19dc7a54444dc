#pragma once
// Between the registers of tensor-core products, where neighbouring columns lie in four lanes, and
// rows in memory, of which a lane moves 16 bytes at once.

#include <cstdint>

namespace nsa::cuda {

// Transposes 4 x 4 registers among 4 neighbouring lanes: lane l gets what lane i had in x[l] as
// x[i].
__device__ __forceinline__ void TransposeQuad(uint32_t (&x)[4]) {
  constexpr unsigned kAll = 0xffffffffu;
  const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t received = __shfl_xor_sync(kAll, odd ? x[i] : x[i + 1], 1);
    x[i] = odd ? received : x[i];
    x[i + 1] = odd ? x[i + 1] : received;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t received = __shfl_xor_sync(kAll, upper ? x[i] : x[i + 2], 2);
    x[i] = upper ? received : x[i];
    x[i + 2] = upper ? x[i + 2] : received;
  }
}

}  // namespace nsa::cuda
