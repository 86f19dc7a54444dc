#pragma once
// Uploader: copies ordinary host memory, such as a mapped file, to a device.

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "engine/runtime/memory.h"

namespace nsa {

// Goes through a pinned buffer of two halves, one of which is filled while the other is copied. For
// start-up: uses the device's marks. Without a device it is memcpy.
class Uploader {
 public:
  explicit Uploader(Device* device) : device_(device) {}

  // `from` is not read after return; `to` is complete after Finish.
  void Copy(const void* from, void* to, int64_t num_bytes);
  // Waits, and gives the pinned buffer back. INTERNAL: a copy failed.
  absl::Status Finish();

 private:
  void CopyPiece(const uint8_t* from, uint8_t* to, int64_t num_bytes);

  Device* const device_;
  std::optional<PinnedBuffer> pinned_;
  int64_t num_pieces_ = 0;
  absl::Status status_;  // the first error
};

// A device buffer with these values in it.
DeviceBuffer CopyToDevice(const void* values, int64_t num_bytes, Device* device);

}  // namespace nsa
