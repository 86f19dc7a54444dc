#include "base/log_writer.h"

#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/thread_name.h"

namespace nsa {
namespace {

// What cannot be written is lost: there is nowhere to say so.
void WriteAll(int file, const std::string& line) {
  for (size_t num_written = 0; num_written < line.size();) {
    const ssize_t result = write(file, line.data() + num_written, line.size() - num_written);
    if (result < 0 && errno != EINTR) return;
    if (result > 0) num_written += static_cast<size_t>(result);
  }
}

std::string DroppedLine(int64_t num_dropped) {
  return FormatLog(
      GetLogFormat(),
      {.level = LogLevel::kWarning, .time = absl::Now(), .message = "lines of the log were lost"},
      LogFields().Number("lines", num_dropped));
}

}  // namespace

LogWriter::LogWriter(int file, int64_t max_waiting_bytes)
    : file_(file), max_waiting_bytes_(max_waiting_bytes), thread_([this] { Run(); }) {}

LogWriter::~LogWriter() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void LogWriter::Write(std::string line) {
  {
    const std::lock_guard lock(mutex_);
    const auto num_bytes = static_cast<int64_t>(line.size());
    if (num_waiting_bytes_ + num_bytes > max_waiting_bytes_) {
      ++num_dropped_;
      return;
    }
    if (num_dropped_ > 0) lines_.push_back(DroppedLine(std::exchange(num_dropped_, 0)));
    num_waiting_bytes_ += num_bytes;
    lines_.push_back(std::move(line));
  }
  changed_.notify_all();
}

bool LogWriter::Flush(absl::Duration timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout),
                           [this] { return num_waiting_bytes_ == 0; });
}

void LogWriter::Run() {
  NameThisThread("nsa-log");
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !lines_.empty(); });
    if (lines_.empty()) return;
    std::deque<std::string> lines = std::exchange(lines_, {});
    const int64_t num_bytes = num_waiting_bytes_;
    lock.unlock();
    for (const std::string& line : lines) WriteAll(file_, line);
    lock.lock();
    num_waiting_bytes_ -= num_bytes;
    changed_.notify_all();
  }
}

}  // namespace nsa
