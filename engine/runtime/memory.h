#pragma once
// Memory of a device, taken at start-up.

#include <cstdint>

#include "engine/runtime/device.h"

namespace nsa {

// Owns one allocation of at least 256-byte alignment (4096 on the host); contents undefined.
// Without a device it is the host's memory. Running out is fatal with the size in the message:
// callers check the configured sizes against the device first.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  // `device` must outlive the buffer.
  explicit DeviceBuffer(int64_t num_bytes, Device* device = nullptr);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;

  void* data() const { return data_; }
  int64_t num_bytes() const { return num_bytes_; }

 private:
  Device* device_ = nullptr;
  void* data_ = nullptr;
  int64_t num_bytes_ = 0;
};

// Owns host memory from which the device copies without a detour; the same rules.
class PinnedBuffer {
 public:
  PinnedBuffer(int64_t num_bytes, Device* device);
  ~PinnedBuffer();
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;

  uint8_t* data() const { return static_cast<uint8_t*>(data_); }
  int64_t num_bytes() const { return num_bytes_; }

 private:
  Device* const device_;
  const int64_t num_bytes_;
  void* const data_;
};

// Host memory, 4096-byte-aligned, in huge pages where that pays; null when there is not enough.
// std::free gives it back.
void* AllocateHost(int64_t num_bytes);

// OK if the device has num_bytes free, else RESOURCE_EXHAUSTED with both numbers; `what` says what
// they are for.
absl::Status CheckFreeMemory(const char* what, int64_t num_bytes, const Device& device);

}  // namespace nsa
