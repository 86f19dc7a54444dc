#pragma once
// One-line logs on stderr, as text ("I 12:01:02.345 message name=value") or as JSON, one object per
// line. Thread-safe: a line is never interleaved with another, and nothing that is logged can begin
// a line of its own.

#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace nsa {

enum class LogLevel : uint8_t { kInfo, kWarning, kError };
enum class LogFormat : uint8_t { kText, kJson };

// Of all lines from now on; text before.
void SetLogFormat(LogFormat format);
LogFormat GetLogFormat();

// What a line says beside its message: names and values, in order.
class LogFields {
 public:
  LogFields& Text(std::string_view name, std::string_view value);
  LogFields& Number(std::string_view name, int64_t value);
  // With three decimals; left out if infinite.
  LogFields& Milliseconds(std::string_view name, absl::Duration value);
  LogFields& Seconds(std::string_view name, absl::Duration value);

  struct Field {
    std::string name;
    std::string json;  // the value
  };
  const std::vector<Field>& fields() const { return fields_; }

 private:
  LogFields& Decimal(std::string_view name, double value);

  std::vector<Field> fields_;
};

void WriteLog(LogLevel level, std::string_view message, const LogFields& fields = {});

// The line that WriteLog writes, with its end.
struct LogRecord {
  LogLevel level = LogLevel::kInfo;
  absl::Time time;
  std::string_view message;
};
std::string FormatLog(LogFormat format, const LogRecord& record, const LogFields& fields);

// `text` as a JSON string with its quotes; ill-formed UTF-8 becomes U+FFFD.
std::string JsonString(std::string_view text);

class LogLine {
 public:
  explicit LogLine(LogLevel level) : level_(level) {}
  ~LogLine() { WriteLog(level_, text_.str()); }
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
