#pragma once
// What caches should hold: sm_80 and later, PrefetchBulk sm_90. All but DiscardLine are hints.

#include <cstdint>

namespace nsa::cuda {

// Brings the sector of global memory that holds `address` near this multiprocessor.
__device__ __forceinline__ void PrefetchGlobal(const void* address) {
  asm volatile("prefetch.global.L1 [%0];" ::"l"(address));
}

// Brings num_bytes of global memory into the L2. Address and num_bytes are multiples of 16.
__device__ __forceinline__ void PrefetchBulk(const void* address, uint32_t num_bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(address), "r"(num_bytes)
               : "memory");
}

inline constexpr int kLineBytes = 128;

// Forgets a line of global memory, so that the L2 need not write it back: until it is written
// again it may have any value. The address is a multiple of kLineBytes.
__device__ __forceinline__ void DiscardLine(void* address) {
  asm volatile("discard.global.L2 [%0], 128;" ::"l"(__cvta_generic_to_global(address)) : "memory");
}

// A policy for data that is read once: the first to leave the L2.
__device__ __forceinline__ uint64_t ReadOncePolicy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

}  // namespace nsa::cuda
