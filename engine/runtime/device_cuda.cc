#include <cuda_runtime.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status.h"
#include "engine/runtime/device.h"
#include "kernels/cuda/context.h"

namespace nsa {
namespace {

constexpr int kMinComputeCapability = 80;
// cuBLASLt's handle, loaded kernels and the like, beside the context's own scratch.
constexpr int64_t kContextBytes = cuda::Context::kLinearWorkspaceBytes + (int64_t{256} << 20);

// For calls that fail only where the program is wrong, or after the device was lost.
void Check(cudaError_t error, const char* what) {
  NSA_CHECK(error == cudaSuccess) << what << ": " << cudaGetErrorString(error);
}

std::string VersionText(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

// Why CUDA as a whole does not work here.
absl::Status NoCuda(cudaError_t error) {
  int driver = 0;
  cudaDriverGetVersion(&driver);  // stays 0 where there is no driver
  if (driver == 0) return absl::NotFoundError("no GPU driver was found");
  if (error == cudaErrorInsufficientDriver || driver < CUDART_VERSION) {
    return absl::FailedPreconditionError(
        absl::StrCat("the GPU driver is too old: a driver for CUDA ", VersionText(CUDART_VERSION),
                     " or later is needed, found one for CUDA ", VersionText(driver)));
  }
  if (error == cudaErrorNoDevice) return absl::NotFoundError("no GPU was found");
  return absl::FailedPreconditionError(
      absl::StrCat("CUDA cannot be used: ", cudaGetErrorString(error)));
}

absl::StatusOr<cudaDeviceProp> FindDevice(int index) {
  int num_devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&num_devices);
  if (error != cudaSuccess) return NoCuda(error);
  if (num_devices == 0) return NoCuda(cudaErrorNoDevice);
  if (index >= num_devices) {
    return absl::NotFoundError(absl::StrCat("--device is cuda:", index, ", the machine has ",
                                            num_devices, num_devices == 1 ? " GPU" : " GPUs",
                                            " (cuda:0 is the first)"));
  }
  cudaDeviceProp properties;
  if (cudaError_t failed = cudaGetDeviceProperties(&properties, index); failed != cudaSuccess) {
    return NoCuda(failed);
  }
  const int capability = 10 * properties.major + properties.minor;
  if (capability >= kMinComputeCapability) return properties;
  return absl::FailedPreconditionError(absl::StrCat("cuda:", index, " (", properties.name,
                                                    ") is sm_", capability, ", sm_",
                                                    kMinComputeCapability, " or later is needed"));
}

class CudaGraph : public StepGraph {
 public:
  CudaGraph(cudaGraphExec_t executable, cudaStream_t stream)
      : executable_(executable), stream_(stream) {}
  ~CudaGraph() override { cudaGraphExecDestroy(executable_); }
  void Launch() override { cudaGraphLaunch(executable_, stream_); }

 private:
  cudaGraphExec_t executable_;
  cudaStream_t stream_;
};

// Where a call's error is not looked at, it is left to cudaGetLastError in Await: it may be one of
// work enqueued earlier.
class CudaDevice : public Device {
 public:
  CudaDevice(int index, const cudaDeviceProp& properties) : index_(index) {
    Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    for (cudaEvent_t& mark : marks_) {
      Check(cudaEventCreateWithFlags(&mark, cudaEventDisableTiming), "cudaEventCreate");
    }
    context_.emplace(index, stream_);
    description_ =
        absl::StrFormat("cuda:%d, %s, sm_%d%d, %.1f GiB", index, properties.name, properties.major,
                        properties.minor, static_cast<double>(total_bytes()) / (int64_t{1} << 30));
  }
  ~CudaDevice() override {
    // What fails here fails because the device is lost, which was reported then.
    context_.reset();
    for (cudaEvent_t mark : marks_) cudaEventDestroy(mark);
    cudaStreamDestroy(stream_);
  }

  DeviceType type() const override { return DeviceType::kCuda; }
  const std::string& description() const override { return description_; }
  Stream stream() override { return {.device = DeviceType::kCuda, .cuda = &*context_}; }
  void Enter() override { cudaSetDevice(index_); }

  int64_t total_bytes() const override { return MemoryInfo().second; }
  int64_t free_bytes() const override { return MemoryInfo().first; }
  void* Allocate(int64_t num_bytes) override {
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, static_cast<size_t>(num_bytes));
    if (error == cudaSuccess) return memory;
    NSA_LOG_ERROR << "cudaMalloc of " << num_bytes << " bytes: " << cudaGetErrorString(error);
    return nullptr;
  }
  void Free(void* memory) override { cudaFree(memory); }
  void* AllocatePinned(int64_t num_bytes) override {
    void* memory = nullptr;
    const cudaError_t error = cudaMallocHost(&memory, static_cast<size_t>(num_bytes));
    return error == cudaSuccess ? memory : nullptr;
  }
  void FreePinned(void* memory) override { cudaFreeHost(memory); }

  void Upload(const void* pinned, void* device, int64_t num_bytes) override {
    cudaMemcpyAsync(device, pinned, static_cast<size_t>(num_bytes), cudaMemcpyHostToDevice,
                    stream_);
  }
  void Download(const void* device, void* pinned, int64_t num_bytes) override {
    cudaMemcpyAsync(pinned, device, static_cast<size_t>(num_bytes), cudaMemcpyDeviceToHost,
                    stream_);
  }
  void Copy(const void* from, void* to, int64_t num_bytes) override {
    cudaMemcpyAsync(to, from, static_cast<size_t>(num_bytes), cudaMemcpyDeviceToDevice, stream_);
  }
  void Mark(int mark) override { cudaEventRecord(marks_[mark], stream_); }
  absl::Status Await(int mark) override {
    cudaError_t error = cudaEventSynchronize(marks_[mark]);
    if (error == cudaSuccess) error = cudaGetLastError();
    if (error == cudaSuccess) return absl::OkStatus();
    return absl::InternalError(
        absl::StrCat(description_, ": ", cudaGetErrorName(error), ": ", cudaGetErrorString(error)));
  }

  bool CanRecord() const override { return true; }
  void BeginRecording() override {
    cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
  }
  std::unique_ptr<StepGraph> EndRecording() override {
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(stream_, &graph) != cudaSuccess || graph == nullptr) return nullptr;
    cudaGraphExec_t executable = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    if (error != cudaSuccess) return nullptr;
    return std::make_unique<CudaGraph>(executable, stream_);
  }

 private:
  // Free and total bytes.
  static std::pair<int64_t, int64_t> MemoryInfo() {
    size_t free_bytes = 0, total_bytes = 0;
    Check(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
    return {static_cast<int64_t>(free_bytes), static_cast<int64_t>(total_bytes)};
  }

  const int index_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t marks_[kNumMarks] = {};
  std::optional<cuda::Context> context_;
  std::string description_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int index) {
  NSA_ASSIGN_OR_RETURN(const cudaDeviceProp properties, FindDevice(index));
  size_t free_bytes = 0, total_bytes = 0;
  cudaError_t error = cudaSetDevice(index);
  if (error == cudaSuccess) error = cudaMemGetInfo(&free_bytes, &total_bytes);
  if (error == cudaErrorMemoryAllocation ||
      (error == cudaSuccess && free_bytes < static_cast<size_t>(kContextBytes))) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cuda:", index, " (", properties.name, ") has no memory left: ", kContextBytes >> 20,
        " MiB are needed to begin with, ", free_bytes >> 20, " of ", total_bytes >> 20,
        " MiB are free"));
  }
  if (error != cudaSuccess) return NoCuda(error);
  return std::make_unique<CudaDevice>(index, properties);
}

}  // namespace nsa
