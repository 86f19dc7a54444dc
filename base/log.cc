#include "base/log.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/log_writer.h"
#include "base/utf8.h"

namespace nsa {
namespace {

constexpr char kLetters[] = {'I', 'W', 'E'};
constexpr const char* kLevelNames[] = {"info", "warning", "error"};

std::atomic<LogFormat> log_format = LogFormat::kText;
std::atomic<LogWriter*> log_writer = nullptr;  // never destroyed: any thread may log at any time

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }

// What stands for a character that a JSON string may not hold, or that would break a line of text.
std::string Escaped(char c) {
  if (c == '\n') return "\\n";
  if (c == '\r') return "\\r";
  if (c == '\t') return "\\t";
  return absl::StrFormat("\\u%04x", static_cast<unsigned char>(c));
}

// `text` on one line.
std::string OneLine(std::string_view text) {
  std::string line;
  for (const char c : text) {
    if (IsControl(c)) {
      line += Escaped(c);
    } else {
      line += c;
    }
  }
  return line;
}

// Of a field: a JSON string goes without its quotes where nothing in it needs them.
std::string TextValue(const std::string& json) {
  const bool is_plain =
      json.size() > 2 && json.find_first_of(" =\"\\", 1) == json.size() - 1 && json.front() == '"';
  return is_plain ? json.substr(1, json.size() - 2) : json;
}

std::string FormatText(const LogRecord& record, const LogFields& fields) {
  std::string line(1, kLetters[static_cast<int>(record.level)]);
  line += absl::FormatTime(" %H:%M:%E3S ", record.time, absl::LocalTimeZone());
  line += OneLine(record.message);
  for (const auto& [name, json] : fields.fields())
    absl::StrAppend(&line, " ", name, "=", TextValue(json));
  return line + "\n";
}

std::string FormatJson(const LogRecord& record, const LogFields& fields) {
  std::string line = absl::StrCat(
      R"({"time":")", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", record.time, absl::UTCTimeZone()),
      R"(","level":")", kLevelNames[static_cast<int>(record.level)], R"(","message":)",
      JsonString(record.message));
  for (const auto& [name, json] : fields.fields()) absl::StrAppend(&line, ",\"", name, "\":", json);
  return line + "}\n";
}

}  // namespace

void SetLogFormat(LogFormat format) { log_format = format; }
LogFormat GetLogFormat() { return log_format; }

std::string JsonString(std::string_view text) {
  std::string json = "\"";
  while (!text.empty()) {
    const Utf8Scan scan = ScanUtf8(text);
    const std::string_view character = text.substr(0, scan.num_bytes);
    if (scan.state != Utf8State::kComplete) {
      json += kReplacementCharacter;
    } else if (character == "\"" || character == "\\") {
      absl::StrAppend(&json, "\\", View(character));
    } else if (IsControl(character.front())) {
      json += Escaped(character.front());
    } else {
      json += character;
    }
    text.remove_prefix(scan.num_bytes);
  }
  return json + "\"";
}

LogFields& LogFields::Text(std::string_view name, std::string_view value) {
  fields_.push_back({.name = std::string(name), .json = JsonString(value)});
  return *this;
}

LogFields& LogFields::Number(std::string_view name, int64_t value) {
  fields_.push_back({.name = std::string(name), .json = absl::StrCat(value)});
  return *this;
}

LogFields& LogFields::Milliseconds(std::string_view name, absl::Duration value) {
  return Decimal(name, absl::ToDoubleMilliseconds(value));
}

LogFields& LogFields::Seconds(std::string_view name, absl::Duration value) {
  return Decimal(name, absl::ToDoubleSeconds(value));
}

LogFields& LogFields::Decimal(std::string_view name, double value) {
  if (!std::isfinite(value)) return *this;
  fields_.push_back({.name = std::string(name), .json = absl::StrFormat("%.3f", value)});
  return *this;
}

std::string FormatLog(LogFormat format, const LogRecord& record, const LogFields& fields) {
  return format == LogFormat::kText ? FormatText(record, fields) : FormatJson(record, fields);
}

void StartLogWriter() {
  constexpr int64_t kMaxWaitingBytes = int64_t{4} << 20;
  if (log_writer == nullptr) log_writer = new LogWriter(STDERR_FILENO, kMaxWaitingBytes);
}

void FlushLog() {
  if (LogWriter* const writer = log_writer; writer != nullptr) writer->Flush(absl::Seconds(1));
}

void WriteLog(LogLevel level, std::string_view message, const LogFields& fields) {
  std::string line =
      FormatLog(log_format, {.level = level, .time = absl::Now(), .message = message}, fields);
  if (LogWriter* const writer = log_writer; writer != nullptr)
    return writer->Write(std::move(line));
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace nsa
