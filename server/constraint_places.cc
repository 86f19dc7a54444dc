#include "server/constraint_places.h"

#include "absl/strings/str_cat.h"

namespace nsa {

absl::StatusOr<ConstraintPlaces::Place> ConstraintPlaces::Reserve(const std::string& caller,
                                                                  int64_t num_requests) {
  const std::lock_guard lock(taken_->mutex);
  int64_t& num_of_caller = taken_->of_caller[caller];
  const bool is_full = taken_->num_places >= limits_.max_places;
  if (is_full || (!caller.empty() && num_of_caller >= limits_.max_places_of_caller)) {
    taken_->num_rejected += num_requests;
    return absl::ResourceExhaustedError(absl::StrCat(
        is_full ? taken_->num_places : num_of_caller, " constraints", is_full ? "" : " of this key",
        " are waiting to be compiled, which is the limit"));
  }
  ++taken_->num_places;
  ++num_of_caller;
  return Place(new std::string(caller), [taken = taken_](const std::string* name) {
    {
      const std::lock_guard taken_lock(taken->mutex);
      --taken->num_places;
      if (--taken->of_caller[*name] == 0) taken->of_caller.erase(*name);
    }
    delete name;
  });
}

void ConstraintPlaces::CountRejected(int64_t num_requests) {
  const std::lock_guard lock(taken_->mutex);
  taken_->num_rejected += num_requests;
}

int64_t ConstraintPlaces::num_rejected() const {
  const std::lock_guard lock(taken_->mutex);
  return taken_->num_rejected;
}

}  // namespace nsa
