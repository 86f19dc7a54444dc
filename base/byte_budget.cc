#include "base/byte_budget.h"

#include <utility>

namespace nsa {

bool ByteBudget::Take(int64_t num_bytes) {
  int64_t num_free = num_free_;
  do {
    if (num_bytes > num_free) return false;
  } while (!num_free_.compare_exchange_weak(num_free, num_free - num_bytes));
  return true;
}

bool ByteShare::GrowTo(int64_t num_bytes) {
  if (num_bytes <= num_held_) return true;
  if (!budget_->Take(num_bytes - num_held_)) return false;
  num_held_ = num_bytes;
  return true;
}

void ByteShare::Release() { budget_->Give(std::exchange(num_held_, 0)); }

}  // namespace nsa
