#pragma once
// The dtypes x head dims that the fast kernels are compiled for, and the only list of them. Other
// operands run on the portable kernels.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "base/dtype.h"

namespace nsa::cuda {

// X(element type, DType, d_k, d_v)
#define NSA_CUDA_INSTANCES(X)       \
  X(__nv_bfloat16, kBF16, 64, 64)   \
  X(__nv_bfloat16, kBF16, 128, 128) \
  X(__nv_bfloat16, kBF16, 192, 128) \
  X(__half, kF16, 64, 64)           \
  X(__half, kF16, 128, 128)         \
  X(__half, kF16, 192, 128)

// Calls f.template operator()<T, d_k, d_v>() for the instance of these operands; false: there is
// none.
template <typename F>
bool DispatchInstance(DType dtype, int64_t d_k, int64_t d_v, F&& f) {
#define NSA_DISPATCH_INSTANCE(T, Name, kDk, kDv)          \
  if (dtype == DType::Name && d_k == kDk && d_v == kDv) { \
    f.template operator()<T, kDk, kDv>();                 \
    return true;                                          \
  }
  NSA_CUDA_INSTANCES(NSA_DISPATCH_INSTANCE)
#undef NSA_DISPATCH_INSTANCE
  return false;
}

inline bool HasInstance(DType dtype, int64_t d_k, int64_t d_v) {
  return DispatchInstance(dtype, d_k, d_v, [&]<typename T, int kDk, int kDv>() {});
}

}  // namespace nsa::cuda
