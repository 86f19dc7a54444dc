#pragma once
// The devices that tests run on: the CPU, and the first GPU of the machine where the build has
// CUDA.

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "engine/runtime/device.h"

namespace nsa {

// A value of a test's parameter; the device itself is opened on first use and kept.
struct TestDevice {
  DeviceType type = DeviceType::kCpu;

  std::string name() const { return type == DeviceType::kCpu ? "cpu" : "cuda"; }
  std::shared_ptr<Device> Open() const;
};
inline void PrintTo(const TestDevice& device, std::ostream* out) { *out << device.name(); }

// The CPU, then the GPU if there is one; and the GPU alone, if there is one.
std::vector<TestDevice> TestDevices();
std::vector<TestDevice> TestGpus();

}  // namespace nsa
