#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "base/check.h"
#include "engine/runtime/memory.h"

namespace nsa {
namespace {

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kHugePageBytes = int64_t{2} << 20;

int64_t RoundUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

DeviceBuffer::DeviceBuffer(int64_t num_bytes) : num_bytes_(num_bytes) {
  NSA_CHECK_GE(num_bytes, 0);
  if (num_bytes == 0) return;
  // Weights and caches are read from end to end; huge pages spare most of the TLB misses.
  const bool is_large = num_bytes >= kHugePageBytes;
  const int64_t unit = is_large ? kHugePageBytes : kPageBytes;
  data_ = std::aligned_alloc(unit, RoundUp(num_bytes, unit));
  NSA_CHECK(data_ != nullptr) << "out of memory: " << num_bytes << " bytes";
  if (is_large) madvise(data_, RoundUp(num_bytes, unit), MADV_HUGEPAGE);  // a wish: may fail
}

DeviceBuffer::~DeviceBuffer() { std::free(data_); }

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), num_bytes_(std::exchange(other.num_bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(num_bytes_, other.num_bytes_);
  return *this;
}

int64_t DeviceMemoryBytes() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
}

}  // namespace nsa
