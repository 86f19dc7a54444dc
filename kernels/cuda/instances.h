#pragma once
// Finds the instance of a kernel for dtypes and head dims; instances.cmake lists them.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "base/dtype.h"
#include "kernels/cuda/instance_list.h"

namespace nsa::cuda {

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

// The same for kernels that read no V: f.template operator()<T, d_k>().
template <typename F>
bool DispatchKeyInstance(DType dtype, int64_t d_k, F&& f) {
#define NSA_DISPATCH_INSTANCE(T, Name, kDk, kDv) \
  if (dtype == DType::Name && d_k == kDk) {      \
    f.template operator()<T, kDk>();             \
    return true;                                 \
  }
  NSA_CUDA_INSTANCES(NSA_DISPATCH_INSTANCE)
#undef NSA_DISPATCH_INSTANCE
  return false;
}

inline bool HasInstance(DType dtype, int64_t d_k, int64_t d_v) {
  return DispatchInstance(dtype, d_k, d_v, [&]<typename T, int kDk, int kDv>() {});
}

}  // namespace nsa::cuda
