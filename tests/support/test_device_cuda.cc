// A build with CUDA, on a machine with a GPU or without.

#include <algorithm>
#include <map>

#include "kernels/cuda/launch.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

// One for the whole process.
cuda::Context& TheContext() {
  static cuda::Context* const context = [] {
    cudaStream_t stream = nullptr;
    NSA_CUDA_CHECK(cudaSetDevice(0));
    NSA_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return new cuda::Context(/*device=*/0, stream);
  }();
  return *context;
}

// Blocks of exact sizes, used again: the tests make thousands of small tensors.
class Pool {
 public:
  void* Take(int64_t num_bytes) {
    std::vector<void*>& blocks = free_[num_bytes];
    if (!blocks.empty()) {
      void* block = blocks.back();
      blocks.pop_back();
      return block;
    }
    void* block = nullptr;
    // A tensor without elements has an address too.
    NSA_CUDA_CHECK(cudaMalloc(&block, static_cast<size_t>(std::max<int64_t>(num_bytes, 1))));
    return block;
  }
  void Release(void* block, int64_t num_bytes) {
    constexpr int64_t kLargest = 1 << 24;  // larger ones go back to the device
    if (num_bytes > kLargest) {
      NSA_CUDA_CHECK(cudaFree(block));
    } else {
      free_[num_bytes].push_back(block);
    }
  }

 private:
  std::map<int64_t, std::vector<void*>> free_;
};

Pool& ThePool() {
  static Pool* const pool = new Pool;
  return *pool;
}

}  // namespace

std::vector<DeviceType> BuildDevices() { return {DeviceType::kCpu, DeviceType::kCuda}; }

bool HasDevice(DeviceType device) {
  if (device == DeviceType::kCpu) return true;
  int num_devices = 0;
  return cudaGetDeviceCount(&num_devices) == cudaSuccess && num_devices > 0;
}

int64_t FreeDeviceBytes(DeviceType device) {
  if (device == DeviceType::kCpu || !HasDevice(device)) return 0;
  size_t free_bytes = 0, total_bytes = 0;
  NSA_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
  return static_cast<int64_t>(free_bytes);
}

OnDevice::OnDevice(DeviceType device, ThreadPool* threads)
    : stream_{.device = device, .threads = threads} {
  if (device == DeviceType::kCuda) stream_.cuda = &TheContext();
}

OnDevice::~OnDevice() {
  if (copies_.empty()) return;
  NSA_CUDA_CHECK(cudaStreamSynchronize(stream_.cuda->stream()));
  for (const Copy& copy : copies_) ThePool().Release(copy.device, copy.num_bytes);
}

void* OnDevice::Place(void* host, int64_t num_bytes) {
  if (stream_.device == DeviceType::kCpu) return host;
  for (const Copy& copy : copies_) {
    if (copy.host == host && copy.num_bytes == num_bytes) return copy.device;
  }
  const Copy copy{.host = host, .device = ThePool().Take(num_bytes), .num_bytes = num_bytes};
  copies_.push_back(copy);
  // On the kernels' stream: a copy from pageable memory may outlast the call.
  NSA_CUDA_CHECK(cudaMemcpyAsync(copy.device, host, static_cast<size_t>(num_bytes),
                                 cudaMemcpyHostToDevice, stream_.cuda->stream()));
  return copy.device;
}

void* OnDevice::PlaceScratch(int64_t num_bytes) {
  if (stream_.device == DeviceType::kCpu) {
    return scratch_.emplace_back(DType::kU8, std::initializer_list<int64_t>{num_bytes})
        .view()
        .raw();
  }
  const Copy copy{.host = nullptr, .device = ThePool().Take(num_bytes), .num_bytes = num_bytes};
  copies_.push_back(copy);
  NSA_CUDA_CHECK(
      cudaMemsetAsync(copy.device, 0xff, static_cast<size_t>(num_bytes), stream_.cuda->stream()));
  return copy.device;
}

void OnDevice::Fetch() {
  if (stream_.device == DeviceType::kCpu) return;
  const cudaError_t error = cudaStreamSynchronize(stream_.cuda->stream());
  NSA_CHECK(error == cudaSuccess) << cudaGetErrorString(error);
  for (const Copy& copy : copies_) {
    if (copy.host == nullptr) continue;
    NSA_CUDA_CHECK(cudaMemcpy(copy.host, copy.device, static_cast<size_t>(copy.num_bytes),
                              cudaMemcpyDeviceToHost));
  }
}

}  // namespace nsa::testing
