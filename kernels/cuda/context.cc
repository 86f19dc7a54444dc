#include "kernels/cuda/context.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear_plans.h"
#include "kernels/cuda/sm90/decode_linear.h"

namespace nsa::cuda {

Context::Context(int device, cudaStream_t stream)
    : device_(device), stream_(stream), linear_plans_(std::make_unique<LinearPlans>()) {
  NSA_CUDA_CHECK(cudaSetDevice(device));
  const auto attribute = [device](cudaDeviceAttr which) {
    int value = 0;
    NSA_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
    return value;
  };
  compute_capability_ = 10 * attribute(cudaDevAttrComputeCapabilityMajor) +
                        attribute(cudaDevAttrComputeCapabilityMinor);
  num_sms_ = attribute(cudaDevAttrMultiProcessorCount);
  NSA_CUBLAS_CHECK(cublasLtCreate(&cublas_));
  NSA_CUDA_CHECK(cudaMalloc(&linear_workspace_, kLinearWorkspaceBytes));
  NSA_CUDA_CHECK(cudaMalloc(&decode_linear_scratch_, DecodeLinearScratchBytes(num_sms_)));
  NSA_CUDA_CHECK(cudaMemsetAsync(decode_linear_scratch_, 0, kDecodeLinearFlagBytes, stream_));
}

Context::~Context() {
  // Errors have nowhere to go: the process may be ending because of one.
  cudaFree(decode_linear_scratch_);
  cudaFree(linear_workspace_);
  cublasLtDestroy(cublas_);
}

}  // namespace nsa::cuda
