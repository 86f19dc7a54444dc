#pragma once
// Turns: lets so many work at the same time; others wait, in order.

#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "absl/base/thread_annotations.h"

namespace nsa {

// Thread-safe. To be held by a shared_ptr; turns keep it alive.
class Turns : public std::enable_shared_from_this<Turns> {
 public:
  // Ends when the last reference goes.
  using Turn = std::shared_ptr<void>;

  explicit Turns(int max_turns) : num_free_(max_turns) {}

  // Calls `go` with a turn: now, or once one is free, on the thread on which another one ends; then
  // it must not take long.
  void Take(std::function<void(Turn)> go);

 private:
  Turn MakeTurn();
  void End();

  std::mutex mutex_;  // not absl::Mutex, which ThreadSanitizer cannot see into
  int num_free_ ABSL_GUARDED_BY(mutex_);
  bool is_passing_on_ ABSL_GUARDED_BY(mutex_) = false;  // a thread gives turns to those who wait
  std::deque<std::function<void(Turn)>> waiting_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nsa
