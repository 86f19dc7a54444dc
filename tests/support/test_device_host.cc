// A build without CUDA.

#include "tests/support/test_device.h"

namespace nsa::testing {

std::vector<DeviceType> BuildDevices() { return {DeviceType::kCpu}; }
int64_t FreeDeviceBytes(DeviceType /*device*/) { return 0; }
bool HasDevice(DeviceType device) { return device == DeviceType::kCpu; }

OnDevice::OnDevice(DeviceType device, ThreadPool* threads)
    : stream_{.device = device, .threads = threads} {}
OnDevice::~OnDevice() = default;
void* OnDevice::Place(void* host, int64_t /*num_bytes*/) { return host; }
void* OnDevice::PlaceScratch(int64_t num_bytes) {
  return scratch_.emplace_back(DType::kU8, std::initializer_list<int64_t>{num_bytes}).view().raw();
}
void OnDevice::Fetch() {}

}  // namespace nsa::testing
