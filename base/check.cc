#include "base/check.h"

#include <cstdlib>

#include "base/log.h"

namespace nsa {

CheckFailure::CheckFailure(const char* file, int line, const char* condition) {
  message_ << file << ":" << line << ": check failed: " << condition << " ";
}

CheckFailure::~CheckFailure() {
  WriteLog(LogLevel::kError, message_.str());
  std::abort();
}

}  // namespace nsa
