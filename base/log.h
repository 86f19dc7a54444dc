#pragma once
// One-line logs on stderr: "I 12:01:02.345 message". Thread-safe; a line is never interleaved with
// another.

#include <sstream>

namespace nsa {

enum class LogLevel { kInfo, kWarning, kError };

class LogLine {
 public:
  explicit LogLine(LogLevel level) : level_(level) {}
  ~LogLine();
  LogLine(const LogLine&) = delete;
  LogLine& operator=(const LogLine&) = delete;
  std::ostream& stream() { return text_; }

 private:
  LogLevel level_;
  std::ostringstream text_;
};

}  // namespace nsa

#define NSA_LOG_INFO ::nsa::LogLine(::nsa::LogLevel::kInfo).stream()
#define NSA_LOG_WARNING ::nsa::LogLine(::nsa::LogLevel::kWarning).stream()
#define NSA_LOG_ERROR ::nsa::LogLine(::nsa::LogLevel::kError).stream()
