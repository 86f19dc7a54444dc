#pragma once
// Context: what every CUDA kernel launch of one stream needs. The runtime makes one at start-up and
// hands it to kernels through Stream::cuda.

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

namespace nsa::cuda {

class LinearPlans;  // which cuBLASLt algorithm multiplies which shape (linear_plans.h)

// One context per device at a time: kernels wait for blocks of their own launch
// (sm90/decode_linear), which those of another stream could keep from running.
class Context {
 public:
  // Device memory that the constructor takes for cuBLASLt's scratch; that of decode steps is a few
  // MiB more.
  static constexpr int64_t kLinearWorkspaceBytes = int64_t{32} << 20;

  // `device` becomes the calling thread's current device. `stream`, which belongs to the caller and
  // must outlive the context, is the one that all kernels of this context are launched on.
  Context(int device, cudaStream_t stream);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  int device() const { return device_; }
  cudaStream_t stream() const { return stream_; }
  // 10 * major + minor, e.g. 90.
  int compute_capability() const { return compute_capability_; }
  int num_sms() const { return num_sms_; }

  cublasLtHandle_t cublas() const { return cublas_; }
  void* linear_workspace() const { return linear_workspace_; }
  void* decode_linear_scratch() const { return decode_linear_scratch_; }  // sm90/decode_linear.h
  LinearPlans& linear_plans() { return *linear_plans_; }

 private:
  int device_;
  cudaStream_t stream_;
  int compute_capability_ = 0;
  int num_sms_ = 0;
  cublasLtHandle_t cublas_ = nullptr;
  void* linear_workspace_ = nullptr;
  void* decode_linear_scratch_ = nullptr;
  std::unique_ptr<LinearPlans> linear_plans_;
};

}  // namespace nsa::cuda
