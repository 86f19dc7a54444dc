#pragma once
// Checks of CUDA calls and launches, and the choice of template arguments at run time.

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <utility>

#include "base/check.h"
#include "base/dtype.h"
#include "kernels/cuda/context.h"
#include "kernels/device.h"

// Fails with the call and CUDA's message. An error that loses the device is not the call's own:
// whoever awaits the work that caused it reports it, and until then the calls behind it do nothing.
#define NSA_CUDA_CHECK(call)                                                                  \
  if (const cudaError_t nsa_cuda_error = (call);                                              \
      nsa_cuda_error == cudaSuccess || ::nsa::cuda::LosesDevice(nsa_cuda_error)) [[likely]] { \
  } else /* NOLINT */                                                                         \
    ::nsa::CheckFailure(__FILE__, __LINE__, #call).stream()                                   \
        << cudaGetErrorString(nsa_cuda_error) << " "

#define NSA_CUBLAS_CHECK(call)                                                                \
  if (const cublasStatus_t nsa_cublas_status = (call);                                        \
      nsa_cublas_status == CUBLAS_STATUS_SUCCESS || ::nsa::cuda::IsDeviceLost()) [[likely]] { \
  } else /* NOLINT */                                                                         \
    ::nsa::CheckFailure(__FILE__, __LINE__, #call).stream()                                   \
        << cublasLtGetStatusString(nsa_cublas_status) << " "

namespace nsa::cuda {

// True for errors of a kernel or of the hardware, after which every call of the process fails.
inline bool LosesDevice(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
      return true;
    default:
      return false;
  }
}

// cuBLASLt does not say why it failed. A query of any stream has the error of a lost device.
inline bool IsDeviceLost() { return LosesDevice(cudaStreamQuery(cudaStreamPerThread)); }

// The element types as device code has them.
template <typename T>
struct DeviceDType;
template <>
struct DeviceDType<float> {
  static constexpr DType kValue = DType::kF32;
};
template <>
struct DeviceDType<__nv_bfloat16> {
  static constexpr DType kValue = DType::kBF16;
};
template <>
struct DeviceDType<__half> {
  static constexpr DType kValue = DType::kF16;
};

// Calls f.template operator()<T>() with float, __nv_bfloat16 or __half.
template <typename F>
void DispatchDevice(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kF32:
      return f.template operator()<float>();
    case DType::kBF16:
      return f.template operator()<__nv_bfloat16>();
    case DType::kF16:
      return f.template operator()<__half>();
    default:
      NSA_CHECK(false) << DTypeName(dtype);
  }
}

// After every launch: reports a launch that was refused; does not wait for the kernel.
inline void CheckLaunch() { NSA_CUDA_CHECK(cudaPeekAtLastError()); }

// Fills the attributes of a launch that may overlap the end of the kernel in front; returns how
// many, at most kMaxEarlyAttributes.
inline constexpr int kMaxEarlyAttributes = 2;
inline unsigned SetEarlyAttributes(cudaLaunchAttribute* attributes) {
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
#if CUDART_VERSION >= 12050
  // A multiprocessor has to be empty to divide its memory anew between L1 and shared memory, and
  // the kernels in front and behind want all of it to be shared.
  attributes[1].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
  attributes[1].val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
  return 2;
#else
  return 1;
#endif
}

// Launches a kernel that calls BeginDependentKernel or WaitThenAllowFollowing
// (ptx/dependent_launch.cuh) before it touches what other kernels write, so that on Hopper its
// launch overlaps the end of the kernel before it.
template <typename... Params, typename... Args>
void LaunchKernel(void (*kernel)(Params...), dim3 grid, int num_threads, size_t shared_bytes,
                  const Context& context, Args&&... args) {
  cudaLaunchAttribute attributes[kMaxEarlyAttributes]{};
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(num_threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = context.stream();
  config.attrs = attributes;
  // Elsewhere the kernel may have been compiled from code of an older architecture, without a wait.
  config.numAttrs = context.compute_capability() == 90 ? SetEarlyAttributes(attributes) : 0;
  NSA_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...));
}

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// CUDA's limit on grid.y and grid.z.
inline constexpr int64_t kMaxGridY = 65535;

}  // namespace nsa::cuda
