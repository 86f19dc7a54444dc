#pragma once
// Stores to blocks of the cluster that complete a barrier there (st.async), and the cluster barrier
// without order of memory: sm_90.

#include <cstdint>

#include "kernels/cuda/ptx/cluster.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"

namespace nsa::cuda {

// All threads of all blocks of the cluster arrive, in whole warps; nothing that they wrote is
// ordered by it.
__device__ __forceinline__ void ClusterArriveRelaxed() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ __forceinline__ void ClusterWaitAligned() {
  asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
}

// Stores to a block of the cluster that count as bytes on a barrier there: who waits for it sees
// them. Both addresses are PeerAddress() of that block.
__device__ __forceinline__ void StorePeerAsync2(uint32_t address, float2 value, uint32_t barrier) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1, %2}, [%3];" ::"r"(
          address),
      "r"(__float_as_uint(value.x)), "r"(__float_as_uint(value.y)), "r"(barrier)
      : "memory");
}
__device__ __forceinline__ void StorePeerAsync4(uint32_t address, float4 value, uint32_t barrier) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, "
      "[%5];" ::"r"(address),
      "r"(__float_as_uint(value.x)), "r"(__float_as_uint(value.y)), "r"(__float_as_uint(value.z)),
      "r"(__float_as_uint(value.w)), "r"(barrier)
      : "memory");
}

}  // namespace nsa::cuda
