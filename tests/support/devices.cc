#include "tests/support/devices.h"

#include "base/check.h"

namespace nsa {
namespace {

// Null where there is no GPU.
std::shared_ptr<Device> FirstGpu() {
  static const std::shared_ptr<Device> gpu = [] {
    absl::StatusOr<std::unique_ptr<Device>> opened = OpenCudaDevice(0);
    return opened.ok() ? std::shared_ptr<Device>(*std::move(opened)) : nullptr;
  }();
  return gpu;
}

}  // namespace

std::shared_ptr<Device> TestDevice::Open() const {
  if (type == DeviceType::kCpu) return OpenHostDevice(/*num_threads=*/2, /*note=*/"");
  std::shared_ptr<Device> gpu = FirstGpu();
  NSA_CHECK(gpu != nullptr) << "there is no GPU";
  return gpu;
}

std::vector<TestDevice> TestGpus() {
  if (FirstGpu() == nullptr) return {};
  return {{DeviceType::kCuda}};
}

std::vector<TestDevice> TestDevices() {
  std::vector<TestDevice> devices = TestGpus();
  devices.insert(devices.begin(), TestDevice{DeviceType::kCpu});
  return devices;
}

}  // namespace nsa
