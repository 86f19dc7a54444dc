// A build with CUDA, on a machine with a GPU or without.

#include <algorithm>

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
  for (const Copy& copy : copies_) NSA_CUDA_CHECK(cudaFree(copy.device));
}

void* OnDevice::Place(void* host, int64_t num_bytes) {
  if (stream_.device == DeviceType::kCpu) return host;
  for (const Copy& copy : copies_) {
    if (copy.host == host && copy.num_bytes == num_bytes) return copy.device;
  }
  // A tensor without elements has an address too.
  Copy copy{.host = host, .device = nullptr, .num_bytes = num_bytes};
  NSA_CUDA_CHECK(cudaMalloc(&copy.device, static_cast<size_t>(std::max<int64_t>(num_bytes, 1))));
  NSA_CUDA_CHECK(
      cudaMemcpy(copy.device, host, static_cast<size_t>(num_bytes), cudaMemcpyHostToDevice));
  copies_.push_back(copy);
  return copy.device;
}

void* OnDevice::PlaceScratch(int64_t num_bytes) {
  if (stream_.device == DeviceType::kCpu) {
    return scratch_.emplace_back(DType::kU8, std::initializer_list<int64_t>{num_bytes})
        .view()
        .raw();
  }
  Copy copy{.host = nullptr, .device = nullptr, .num_bytes = num_bytes};
  const auto size = static_cast<size_t>(std::max<int64_t>(num_bytes, 1));
  NSA_CUDA_CHECK(cudaMalloc(&copy.device, size));
  NSA_CUDA_CHECK(cudaMemset(copy.device, 0xff, size));
  copies_.push_back(copy);
  return copy.device;
}

void OnDevice::Fetch() {
  if (stream_.device == DeviceType::kCpu) return;
  NSA_CUDA_CHECK(cudaStreamSynchronize(stream_.cuda->stream()));
  for (const Copy& copy : copies_) {
    if (copy.host == nullptr) continue;
    NSA_CUDA_CHECK(cudaMemcpy(copy.host, copy.device, static_cast<size_t>(copy.num_bytes),
                              cudaMemcpyDeviceToHost));
  }
}

}  // namespace nsa::testing
