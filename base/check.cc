#include "base/check.h"

#include <cstdlib>

#include "base/log.h"
#include "base/log_writer.h"

namespace nsa {

CheckFailure::CheckFailure(const char* file, int line, const char* condition) {
  message_ << file << ":" << line << ": check failed: " << condition << " ";
}

CheckFailure::~CheckFailure() {
  WriteLog(LogLevel::kError, message_.str());
  FlushLog();
  std::abort();
}

}  // namespace nsa
