#include "server/http/turns.h"

#include <utility>

namespace nsa {

void Turns::Take(std::function<void(Turn)> go) {
  {
    const std::lock_guard lock(mutex_);
    if (num_free_ == 0) {
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

// The next one has the turn that has ended.
void Turns::End() {
  std::function<void(Turn)> next;
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.empty()) {
      ++num_free_;
      return;
    }
    next = std::move(waiting_.front());
    waiting_.pop_front();
  }
  next(MakeTurn());
}

}  // namespace nsa
