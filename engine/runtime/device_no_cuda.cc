// The GPU of a build without CUDA.

#include "engine/runtime/device.h"

namespace nsa {

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int /*index*/) {
  return absl::UnimplementedError("this build has no CUDA (preset cuda-release has it)");
}

}  // namespace nsa
