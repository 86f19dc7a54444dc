#include "engine/runtime/device.h"

#include "absl/strings/str_cat.h"

namespace nsa {

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(const DeviceChoice& choice, int num_threads) {
  if (choice.kind == DeviceChoice::Kind::kCpu) return OpenHostDevice(num_threads, "");
  absl::StatusOr<std::unique_ptr<Device>> gpu = OpenCudaDevice(choice.index);
  if (gpu.ok() || choice.kind == DeviceChoice::Kind::kCuda) return gpu;
  return OpenHostDevice(num_threads, absl::StrCat("no GPU: ", gpu.status().message()));
}

}  // namespace nsa
