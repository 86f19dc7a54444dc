#pragma once
// Flags in global memory between blocks that run at the same time: sm_70 and later.

#include <cstdint>

namespace nsa::cuda {

// Sets the flag. This thread's writes before, and those of threads that it has synchronised with
// after their __threadfence, are visible to whoever sees it set.
__device__ __forceinline__ void RaiseFlag(int32_t* flag) {
  asm volatile("st.release.gpu.global.s32 [%0], 1;" ::"l"(flag) : "memory");
}

// Waits until the flag is set, and takes it down for the next launch. Other threads see the writes
// behind it after a barrier with this one.
__device__ __forceinline__ void TakeFlag(int32_t* flag) {
  int32_t value = 0;
  while (value == 0) {
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  }
  *flag = 0;
}

}  // namespace nsa::cuda
