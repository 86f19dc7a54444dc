#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace nsa {
namespace {

// An open file; closed with the scope.
class Descriptor {
 public:
  // O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
  explicit Descriptor(const std::string& path)
      : number_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int number() const { return number_; }

 private:
  const int number_;
};

absl::Status Unreadable(const std::string& path, int error) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read: ", std::strerror(error)));
}

// At most `max_bytes` bytes from the file's place on; fewer only at its end.
absl::StatusOr<std::string> ReadUpTo(int file, const std::string& path, int64_t max_bytes) {
  constexpr size_t kChunkBytes = 1 << 16;
  std::string bytes;
  while (static_cast<int64_t>(bytes.size()) < max_bytes) {
    const size_t begin = bytes.size();
    bytes.resize(begin + std::min<size_t>(kChunkBytes, max_bytes - begin));
    const ssize_t num_read = read(file, bytes.data() + begin, bytes.size() - begin);
    bytes.resize(begin + std::max<ssize_t>(num_read, 0));
    if (num_read == 0) break;
    if (num_read < 0 && errno != EINTR) return Unreadable(path, errno);
  }
  return bytes;
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  const Descriptor file(path);
  if (file.number() < 0 && (errno == ENOENT || errno == ENOTDIR)) {
    return absl::NotFoundError(absl::StrCat(path, ": no such file"));
  }
  if (file.number() < 0) return Unreadable(path, errno);
  struct stat info = {};
  if (fstat(file.number(), &info) != 0) return Unreadable(path, errno);
  if (!S_ISREG(info.st_mode)) {
    const char* kind = S_ISDIR(info.st_mode) ? "is a directory" : "is not a regular file";
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", kind));
  }
  // One byte more than allowed: the file may have grown since it was asked for its size.
  auto bytes = ReadUpTo(file.number(), path, max_bytes + 1);
  if (bytes.ok() && static_cast<int64_t>(bytes->size()) > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": has ",
                                                   std::max<int64_t>(info.st_size, max_bytes + 1),
                                                   " bytes; at most ", max_bytes, " are allowed"));
  }
  return bytes;
}

}  // namespace nsa
