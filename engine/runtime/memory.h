#pragma once
// Device memory, taken at start-up. memory_host.cc and memory_cuda.cc implement it; CMake picks
// one.

#include <cstdint>

namespace nsa {

// Owns one 4096-byte-aligned allocation on the device; contents undefined. Running out is fatal
// with the size in the message: callers check the configured sizes against the machine first.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(int64_t num_bytes);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;

  void* data() const { return data_; }
  int64_t num_bytes() const { return num_bytes_; }

 private:
  void* data_ = nullptr;
  int64_t num_bytes_ = 0;
};

// Bytes of memory that the device has in total, used or not.
int64_t DeviceMemoryBytes();

}  // namespace nsa
