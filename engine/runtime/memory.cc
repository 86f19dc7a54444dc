#include "engine/runtime/memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/check.h"

namespace nsa {
namespace {

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kHugePageBytes = int64_t{2} << 20;

int64_t RoundUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

double Gib(int64_t num_bytes) { return static_cast<double>(num_bytes) / (int64_t{1} << 30); }

}  // namespace

void* AllocateHost(int64_t num_bytes) {
  // Weights and caches are read from end to end; huge pages spare most of the TLB misses.
  const bool is_large = num_bytes >= kHugePageBytes;
  const int64_t unit = is_large ? kHugePageBytes : kPageBytes;
  void* memory = std::aligned_alloc(unit, RoundUp(num_bytes, unit));
  if (memory != nullptr && is_large) {
    madvise(memory, RoundUp(num_bytes, unit), MADV_HUGEPAGE);  // a wish: may fail
  }
  return memory;
}

absl::Status CheckFreeMemory(const char* what, int64_t num_bytes, const Device& device) {
  const int64_t free_bytes = device.free_bytes();
  if (num_bytes <= free_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrFormat("out of memory on %s: %s needs %.2f GiB, %.2f GiB are free",
                      device.description(), what, Gib(num_bytes), Gib(free_bytes)));
}

DeviceBuffer::DeviceBuffer(int64_t num_bytes, Device* device)
    : device_(device), num_bytes_(num_bytes) {
  NSA_CHECK_GE(num_bytes, 0);
  if (num_bytes == 0) return;
  data_ = device == nullptr ? AllocateHost(num_bytes) : device->Allocate(num_bytes);
  NSA_CHECK(data_ != nullptr) << "out of memory: " << num_bytes << " bytes";
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ == nullptr) return;
  if (device_ == nullptr) {
    std::free(data_);
  } else {
    device_->Free(data_);
  }
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : device_(other.device_),
      data_(std::exchange(other.data_, nullptr)),
      num_bytes_(std::exchange(other.num_bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(num_bytes_, other.num_bytes_);
  return *this;
}

PinnedBuffer::PinnedBuffer(int64_t num_bytes, Device* device)
    : device_(device), num_bytes_(num_bytes), data_(device->AllocatePinned(num_bytes)) {
  NSA_CHECK(data_ != nullptr) << "out of host memory: " << num_bytes << " bytes";
}

PinnedBuffer::~PinnedBuffer() { device_->FreePinned(data_); }

}  // namespace nsa
