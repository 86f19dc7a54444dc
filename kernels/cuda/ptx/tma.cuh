#pragma once
// The bulk tensor copy engine (TMA): copies of boxes of a tensor map between global and shared
// memory, sm_90. tensor_map.h makes the maps; a kernel takes them as `const __grid_constant__
// CUtensorMap` parameters. Coordinates run from the innermost dimension outwards; what lies outside
// of the tensor is read as 0 and not written. With SWIZZLE_128B the box is 128 bytes wide and the
// 16-byte chunk c of its row r lands at chunk c ^ (r % 8); the destination is 1024-byte aligned.
// One thread issues a copy.

#include <cuda.h>

#include <cstdint>

namespace nsa::cuda {

__device__ __forceinline__ void PrefetchTensorMap(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Loads complete on `barrier` (mbarrier.cuh, ArriveExpectBytes).
__device__ __forceinline__ void LoadBox2(uint32_t destination, const CUtensorMap* map,
                                         uint32_t barrier, int32_t x, int32_t y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4}], [%2];" ::"r"(destination),
      "l"(map), "r"(barrier), "r"(x), "r"(y)
      : "memory");
}
__device__ __forceinline__ void LoadBox3(uint32_t destination, const CUtensorMap* map,
                                         uint32_t barrier, int32_t x, int32_t y, int32_t z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(destination),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z)
      : "memory");
}
__device__ __forceinline__ void LoadBox4(uint32_t destination, const CUtensorMap* map,
                                         uint32_t barrier, int32_t x, int32_t y, int32_t z,
                                         int32_t w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(destination),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}
// The box goes to the same addresses, and completes on the same barrier, of every block of the
// cluster whose bit is set in `blocks`.
__device__ __forceinline__ void LoadBox2Multicast(uint32_t destination, const CUtensorMap* map,
                                                  uint32_t barrier, int32_t x, int32_t y,
                                                  uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(destination),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "h"(blocks)
      : "memory");
}

// Stores belong to this thread's current group; the writers of the shared memory have passed
// FenceAsyncShared and a barrier before.
__device__ __forceinline__ void StoreBox3(const CUtensorMap* map, uint32_t source, int32_t x,
                                          int32_t y, int32_t z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(
          map),
      "r"(source), "r"(x), "r"(y), "r"(z)
      : "memory");
}
__device__ __forceinline__ void CommitStores() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
// Waits until at most kPending of this thread's newest groups still read shared memory.
template <int kPending>
__device__ __forceinline__ void WaitForStoreReads() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

}  // namespace nsa::cuda
