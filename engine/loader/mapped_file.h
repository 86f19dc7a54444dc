#pragma once
// MappedFile: a file's bytes, mapped read-only.

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace nsa {

class MappedFile {
 public:
  // NOT_FOUND or INVALID_ARGUMENT names the file's last path component.
  static absl::StatusOr<MappedFile> Open(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const uint8_t> bytes() const { return {data_, num_bytes_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), num_bytes_}; }

 private:
  MappedFile(const uint8_t* data, size_t num_bytes) : data_(data), num_bytes_(num_bytes) {}

  const uint8_t* data_ = nullptr;
  size_t num_bytes_ = 0;
};

// The last component of a path, as messages show it.
std::string FileName(const std::string& path);

}  // namespace nsa
