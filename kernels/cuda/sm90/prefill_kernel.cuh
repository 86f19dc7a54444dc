#pragma once
// What the prefill kernels' launches and pipelines share.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "base/check.h"
#include "base/tensor_view.h"
#include "kernels/cuda/instances.h"
#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/ptx/tensor_map.h"
#include "kernels/cuda/sm90/attend_page.cuh"

namespace nsa::cuda {

inline constexpr float kLog2E = 1.44269504088896340736F;

// A ring of stages that producer and consumer walk in the same order.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// The consumer warpgroup of this thread, where warpgroup 0 produces; known to the compiler to be
// the same for a whole warp, so that wgmma may stay in flight across branches on it.
__device__ __forceinline__ int ConsumerIndex() {
  return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128 - 1, 0);
}

// The first 1024-byte aligned address of dynamic shared memory (the swizzle's period).
inline constexpr int kSharedAlignment = 1024;
__device__ __forceinline__ uint8_t* AlignShared(uint8_t* memory) {
  const uint32_t past = SharedAddress(memory) % kSharedAlignment;
  return memory + (past == 0 ? 0 : kSharedAlignment - past);
}

// low and high += weight * the two halves of a packed pair.
template <typename T>
__device__ __forceinline__ void AddPair(uint32_t pair, float weight, float& low, float& high) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    low = fmaf(weight, __uint_as_float(pair << 16), low);
    high = fmaf(weight, __uint_as_float(pair & 0xffff0000u), high);
  } else {
    const float2 values = __half22float2(*reinterpret_cast<const __half2*>(&pair));
    low = fmaf(weight, values.x, low);
    high = fmaf(weight, values.y, high);
  }
}

// Registers 8 c .. 8 c + 7 of a product's result, rows scaled: the unit in which partials are kept.
template <typename T>
__device__ __forceinline__ uint4 PackFragment(const float* out, const float (&factor)[2]) {
  return {PackPair<T>(out[0] * factor[0], out[1] * factor[0]),
          PackPair<T>(out[2] * factor[1], out[3] * factor[1]),
          PackPair<T>(out[4] * factor[0], out[5] * factor[0]),
          PackPair<T>(out[6] * factor[1], out[7] * factor[1])};
}

__device__ __forceinline__ float Sigmoid(float x) { return 1.0F / (1.0F + __expf(-x)); }

// [tokens, heads, d] in boxes of 64 columns, `box_heads` heads and `box_tokens` tokens.
inline CUtensorMap MapQueries(const TensorView& q, uint32_t box_heads, uint32_t box_tokens) {
  return MakeTensorMap({q.raw(),
                        q.dtype() == DType::kBF16,
                        {{q.dim(2), 0, kBoxColumns},
                         {q.dim(1), q.stride(1) * 2, box_heads},
                         {q.dim(0), q.stride(0) * 2, box_tokens}}});
}

// K or V [pages, heads, page rows, d] as rows, in boxes of 64 columns and 64 rows.
inline CUtensorMap MapRows(const TensorView& kv) {
  const int64_t num_rows = kv.dim(0) * kv.dim(1) * kv.dim(2), d = kv.dim(3);
  return MakeTensorMap(
      {kv.raw(), kv.dtype() == DType::kBF16, {{d, 0, kBoxColumns}, {num_rows, d * 2, kPageRows}}});
}

// Calls f.template operator()<T, d_k, d_v>() for the instance that serves q and a V of d_v columns,
// which must be one.
template <typename F>
void DispatchHopper(const TensorView& q, int64_t d_v, F&& f) {
  NSA_CHECK(DispatchInstance(q.dtype(), q.dim(2), d_v, f)) << q.ToString() << ", d_v " << d_v;
}

inline constexpr int kMaxSharedBytes = 227 * 1024;  // of a block

// A grid of blocks that take work until there is none.
struct PersistentGrid {
  int num_blocks;
  int num_threads;
  int64_t shared_bytes;  // before alignment to kSharedAlignment
};

template <typename Kernel, typename... Args>
void LaunchPersistent(const PersistentGrid& grid, cudaStream_t stream, Kernel kernel,
                      const Args&... args) {
  const int bytes = static_cast<int>(grid.shared_bytes) + kSharedAlignment;
  NSA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) ==
            cudaSuccess)
      << bytes << " bytes of shared memory";
  kernel<<<grid.num_blocks, grid.num_threads, bytes, stream>>>(args...);
  const cudaError_t error = cudaGetLastError();
  NSA_CHECK(error == cudaSuccess) << cudaGetErrorString(error);
}

}  // namespace nsa::cuda
