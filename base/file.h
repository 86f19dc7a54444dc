#pragma once
// Small files, read whole.

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace nsa {

// The bytes of the regular file `path`. NOT_FOUND: there is none; INVALID_ARGUMENT: it is a
// directory, a device or the like, cannot be read, or has more than `max_bytes`. Errors name
// `path`.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes);

}  // namespace nsa
