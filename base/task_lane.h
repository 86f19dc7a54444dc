#pragma once
// TaskLane: a few threads that run tasks in the order in which they came.

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"

namespace nsa {

class TaskLane {
 public:
  // `name`: of the threads, as NameThisThread.
  TaskLane(int num_threads, const char* name);
  // Runs what waits, and ends.
  ~TaskLane();
  TaskLane(const TaskLane&) = delete;
  TaskLane& operator=(const TaskLane&) = delete;

  // Later, on one of the threads. From any thread.
  void Run(std::function<void()> task);

 private:
  void Work(const char* name);

  std::mutex mutex_;  // not absl::Mutex, which ThreadSanitizer cannot see into
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // last: they use everything above
};

}  // namespace nsa
