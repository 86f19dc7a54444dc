#pragma once
// Hints that data will be read.

namespace nsa::cuda {

// Brings the sector of global memory that holds `address` near this multiprocessor.
__device__ __forceinline__ void PrefetchGlobal(const void* address) {
  asm volatile("prefetch.global.L1 [%0];" ::"l"(address));
}

}  // namespace nsa::cuda
