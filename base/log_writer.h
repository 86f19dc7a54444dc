#pragma once
// LogWriter: writes lines on a thread of its own, so that nobody who logs waits for whoever reads.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

namespace nsa {

// The lines of base/log.h are written on a thread from now on, with a bound of 4 MiB.
void StartLogWriter();
// Before the process ends: waits for that thread, but not for longer than a second.
void FlushLog();

// Thread-safe.
class LogWriter {
 public:
  // Beyond so many bytes that wait, lines are dropped; a line of their number follows.
  LogWriter(int file, int64_t max_waiting_bytes);
  // Writes what waits.
  ~LogWriter();
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  void Write(std::string line);
  // Until everything is written; false: not within the time.
  bool Flush(absl::Duration timeout);

 private:
  void Run();

  const int file_;
  const int64_t max_waiting_bytes_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> lines_ ABSL_GUARDED_BY(mutex_);
  int64_t num_waiting_bytes_ ABSL_GUARDED_BY(mutex_) =
      0;                                             // of lines_, and of the one being written
  int64_t num_dropped_ ABSL_GUARDED_BY(mutex_) = 0;  // of which no line was made yet
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace nsa
