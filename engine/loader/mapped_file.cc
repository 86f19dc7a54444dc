#include "engine/loader/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace nsa {

std::string FileName(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    const char* reason = errno == ENOENT ? "no such file" : std::strerror(errno);
    return absl::NotFoundError(absl::StrCat(FileName(path), ": ", reason));
  }
  struct stat info = {};
  const bool is_file = fstat(file, &info) == 0 && S_ISREG(info.st_mode);
  void* data = nullptr;
  if (is_file && info.st_size > 0) {
    data = mmap(nullptr, info.st_size, PROT_READ, MAP_PRIVATE, file, 0);
  }
  const int error = errno;
  close(file);  // the mapping keeps the file
  if (!is_file) return absl::InvalidArgumentError(absl::StrCat(FileName(path), ": not a file"));
  if (data == MAP_FAILED) {
    return absl::InternalError(
        absl::StrCat(FileName(path), ": cannot be mapped: ", std::strerror(error)));
  }
  return MappedFile(static_cast<const uint8_t*>(data), info.st_size);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), num_bytes_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), num_bytes_(std::exchange(other.num_bytes_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(num_bytes_, other.num_bytes_);
  return *this;
}

}  // namespace nsa
