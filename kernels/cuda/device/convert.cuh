#pragma once
// Conversions to and from fp32, one element or 16-byte-aligned packs at a time.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "base/dtype.h"

namespace nsa::cuda {

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float ToFloat(__half x) { return __half2float(x); }

template <typename T>
__device__ __forceinline__ T FromFloat(float x);
template <>
__device__ __forceinline__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 FromFloat<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ __half FromFloat<__half>(float x) {
  return __float2half_rn(x);
}

// kPack neighbouring elements, moved in accesses of up to 16 bytes.
template <typename T, int kPack>
struct alignas(sizeof(T) * kPack < 16 ? sizeof(T) * kPack : 16) Pack {
  T values[kPack];
};

template <int kPack, typename T>
__device__ __forceinline__ void LoadPack(const T* from, float (&to)[kPack]) {
  const Pack<T, kPack> pack = *reinterpret_cast<const Pack<T, kPack>*>(from);
#pragma unroll
  for (int i = 0; i < kPack; ++i) to[i] = ToFloat(pack.values[i]);
}

template <int kPack, typename T>
__device__ __forceinline__ void StorePack(const float (&from)[kPack], T* to) {
  Pack<T, kPack> pack;
#pragma unroll
  for (int i = 0; i < kPack; ++i) pack.values[i] = FromFloat<T>(from[i]);
  *reinterpret_cast<Pack<T, kPack>*>(to) = pack;
}

// Element `index` of a tensor whose dtype is known at run time only: f32, bf16 or f16.
__device__ __forceinline__ float LoadElement(const void* data, DType dtype, int64_t index) {
  if (dtype == DType::kF32) return static_cast<const float*>(data)[index];
  if (dtype == DType::kBF16) return ToFloat(static_cast<const __nv_bfloat16*>(data)[index]);
  return ToFloat(static_cast<const __half*>(data)[index]);
}
__device__ __forceinline__ void StoreElement(float value, void* data, DType dtype, int64_t index) {
  if (dtype == DType::kF32) {
    static_cast<float*>(data)[index] = value;
  } else if (dtype == DType::kBF16) {
    static_cast<__nv_bfloat16*>(data)[index] = FromFloat<__nv_bfloat16>(value);
  } else {
    static_cast<__half*>(data)[index] = FromFloat<__half>(value);
  }
}

}  // namespace nsa::cuda
