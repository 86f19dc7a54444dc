#pragma once
// Host side of tma.cuh: describes a row-major 16-bit tensor to the copy engine.

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <initializer_list>

#include "base/check.h"

namespace nsa::cuda {

struct TensorMapSpec {
  const void* data;  // 16-byte aligned
  bool bf16;         // else fp16
  // From the innermost dimension outwards: extent, bytes between neighbours (the innermost is
  // contiguous, its stride is not read; others are multiples of 16), extent of a box.
  struct Dim {
    int64_t extent;
    int64_t stride_bytes;
    uint32_t box;
  };
  std::initializer_list<Dim> dims;
};

// With 128-byte swizzle: the innermost box extent is 64 elements.
inline CUtensorMap MakeTensorMap(const TensorMapSpec& spec) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry,
                                                             12000, cudaEnableDefault, &found);
#else
  const cudaError_t error =
      cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &entry, cudaEnableDefault, &found);
#endif
  NSA_CHECK(error == cudaSuccess && found == cudaDriverEntryPointSuccess)
      << "the driver lacks cuTensorMapEncodeTiled";
  constexpr int kMaxDims = 5;
  cuuint64_t extents[kMaxDims], strides[kMaxDims];
  cuuint32_t box[kMaxDims], element_strides[kMaxDims];
  cuuint32_t rank = 0;
  for (const TensorMapSpec::Dim& dim : spec.dims) {
    extents[rank] = static_cast<cuuint64_t>(dim.extent);
    if (rank > 0) strides[rank - 1] = static_cast<cuuint64_t>(dim.stride_bytes);
    box[rank] = dim.box;
    element_strides[rank] = 1;
    ++rank;
  }
  CUtensorMap map;
  const CUresult result = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry)(
      &map, spec.bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, rank,
      const_cast<void*>(spec.data), extents, strides, box, element_strides,
      CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  NSA_CHECK(result == CUDA_SUCCESS) << "cuTensorMapEncodeTiled: error " << result;
  return map;
}

}  // namespace nsa::cuda
