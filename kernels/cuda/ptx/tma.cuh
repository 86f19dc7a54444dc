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

}  // namespace nsa::cuda
