#include "base/task_lane.h"

#include <utility>

#include "base/thread_name.h"

namespace nsa {

TaskLane::TaskLane(int num_threads, const char* name) {
  for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this, name] { Work(name); });
}

TaskLane::~TaskLane() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void TaskLane::Run(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  changed_.notify_one();
}

void TaskLane::Work(const char* name) {
  NameThisThread(name);
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace nsa
