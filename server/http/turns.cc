#include "server/http/turns.h"

#include <utility>

namespace nsa {

void Turns::Take(std::function<void(Turn)> go) {
  {
    const std::lock_guard lock(mutex_);
    if (num_free_ == 0 || !waiting_.empty()) {
      waiting_.push_back(std::move(go));
      return;
    }
    --num_free_;
  }
  go(MakeTurn());
}

Turns::Turn Turns::MakeTurn() {
  return {nullptr, [self = shared_from_this()](std::nullptr_t) { self->End(); }};
}

// Who does not use a turn ends it inside of `next`: the loop passes it on, however many they are.
void Turns::End() {
  {
    const std::lock_guard lock(mutex_);
    ++num_free_;
    if (std::exchange(is_passing_on_, true)) return;
  }
  for (;;) {
    std::function<void(Turn)> next;
    {
      const std::lock_guard lock(mutex_);
      if (waiting_.empty() || num_free_ == 0) {
        is_passing_on_ = false;
        return;
      }
      next = std::move(waiting_.front());
      waiting_.pop_front();
      --num_free_;
    }
    next(MakeTurn());
  }
}

}  // namespace nsa
