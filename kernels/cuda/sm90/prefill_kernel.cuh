#pragma once
// What the prefill kernels' launches and pipelines share.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "base/check.h"
#include "base/tensor_view.h"
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

inline bool IsHopperInstance(int64_t d_k, int64_t d_v) {
  return (d_k == 64 && d_v == 64) || (d_k == 128 && d_v == 128) || (d_k == 192 && d_v == 128);
}
// Calls f.template operator()<T, d_k, d_v>() for the instance that serves q and a V of d_v columns.
template <typename F>
void DispatchHopper(const TensorView& q, int64_t d_v, F&& f) {
  const auto with_type = [&]<typename T>() {
    const int64_t d_k = q.dim(2);
    if (d_k == 64 && d_v == 64) return f.template operator()<T, 64, 64>();
    if (d_k == 128 && d_v == 128) return f.template operator()<T, 128, 128>();
    NSA_CHECK(d_k == 192 && d_v == 128) << "head dims " << d_k << " and " << d_v;
    f.template operator()<T, 192, 128>();
  };
  if (q.dtype() == DType::kBF16) {
    with_type.template operator()<__nv_bfloat16>();
  } else {
    with_type.template operator()<__half>();
  }
}

// One block per multiprocessor.
template <typename Kernel, typename... Args>
void LaunchPersistent(Kernel kernel, int num_sms, int num_threads, int64_t shared_bytes,
                      cudaStream_t stream, const Args&... args) {
  const int bytes = static_cast<int>(shared_bytes) + kSharedAlignment;
  NSA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) ==
            cudaSuccess)
      << bytes << " bytes of shared memory";
  kernel<<<num_sms, num_threads, bytes, stream>>>(args...);
  NSA_CHECK(cudaGetLastError() == cudaSuccess) << cudaGetErrorString(cudaPeekAtLastError());
}

}  // namespace nsa::cuda
