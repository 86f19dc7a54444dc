#pragma once
// Runs an operation of kernels/ on any device that the build and the machine have, over tensors
// that the test keeps on the host. test_device_cuda.cc or test_device_host.cc implements it.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/device.h"
#include "kernels/paged_kv.h"
#include "tests/support/tensor.h"

namespace nsa::testing {

// kCpu, and kCuda in a build with CUDA.
std::vector<DeviceType> BuildDevices();
// False for kCuda on a machine without a GPU: a test of it is skipped.
bool HasDevice(DeviceType device);

inline std::string DeviceName(DeviceType device) {
  return device == DeviceType::kCpu ? "Cpu" : "Cuda";
}

// Bytes of the device's memory that are free; 0 where there is none.
int64_t FreeDeviceBytes(DeviceType device);

// A test that runs on every device of the build.
class DeviceTest : public ::testing::TestWithParam<DeviceType> {
 protected:
  void SetUp() override {
    if (!HasDevice(GetParam())) GTEST_SKIP() << "this machine has no GPU";
  }
};
#define NSA_INSTANTIATE_ON_DEVICES(Suite)                                       \
  INSTANTIATE_TEST_SUITE_P(Devices, Suite, ::testing::ValuesIn(BuildDevices()), \
                           [](const auto& info) { return DeviceName(info.param); })

// Copies of the tensors of one or more calls in the device's memory; on the CPU the tensors
// themselves.
//   OnDevice on(device);
//   SwiGlu({.gate_up = on(gate_up), .out = on(out)}, on.stream());
//   on.Fetch();
class OnDevice {
 public:
  explicit OnDevice(DeviceType device, ThreadPool* threads = nullptr);
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  const Stream& stream() const { return stream_; }
  // The same host tensor always gives the same copy. It must live until Fetch.
  TensorView operator()(const TensorView& host);
  PagedKv operator()(const PagedKv& host);
  TokenMap operator()(const TokenMap& host);
  // u8 memory of the device whose bytes are 0xff; not copied back.
  TensorView Scratch(int64_t num_bytes);
  // Waits for the calls, then copies all tensors back to where they came from.
  void Fetch();

 private:
  struct Copy {
    void* host;
    void* device;
    int64_t num_bytes;
  };
  // The device's copy of num_bytes at `host`.
  void* Place(void* host, int64_t num_bytes);
  void* PlaceScratch(int64_t num_bytes);

  Stream stream_;
  std::vector<Copy> copies_;     // scratch: without a host
  std::vector<Tensor> scratch_;  // on the CPU
};

}  // namespace nsa::testing
