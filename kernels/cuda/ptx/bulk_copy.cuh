#pragma once
// Bulk copies of contiguous bytes from global to shared memory (cp.async.bulk) that complete on a
// barrier (mbarrier.cuh, ArriveExpectBytes): sm_90. One thread issues a copy.

#include <cstdint>

namespace nsa::cuda {

// Addresses and num_bytes are multiples of 16.
__device__ __forceinline__ void LoadBulk(uint32_t destination, const void* source,
                                         uint32_t num_bytes, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(destination),
      "l"(source), "r"(num_bytes), "r"(barrier)
      : "memory");
}

// The same with an L2 policy (prefetch.cuh).
__device__ __forceinline__ void LoadBulk(uint32_t destination, const void* source,
                                         uint32_t num_bytes, uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1], %2, [%3], %4;" ::"r"(destination),
      "l"(source), "r"(num_bytes), "r"(barrier), "l"(policy)
      : "memory");
}

}  // namespace nsa::cuda
