#pragma once
// ConstraintPlaces: how many constraints may be compiled or wait for it, of all callers and of one.

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"

namespace nsa {

// Thread-safe. Places may outlive it.
class ConstraintPlaces {
 public:
  struct Limits {
    int64_t max_places = 64;
    int64_t max_places_of_caller = 32;  // of one key; where keys are not asked for, nobody is known
  };
  // A place, which is free again when the last pointer to it goes. What it points to is the name of
  // the caller, as GenerateCall::caller.
  using Place = std::shared_ptr<const std::string>;

  explicit ConstraintPlaces(Limits limits) : limits_(limits) {}

  // RESOURCE_EXHAUSTED: none is left; so many requests are counted as refused.
  absl::StatusOr<Place> Reserve(const std::string& caller, int64_t num_requests);

  // Those that were refused for another reason.
  void CountRejected(int64_t num_requests);
  int64_t num_rejected() const;  // requests

 private:
  struct Taken {
    std::mutex mutex;
    int64_t num_places ABSL_GUARDED_BY(mutex) = 0;
    std::map<std::string, int64_t> of_caller ABSL_GUARDED_BY(mutex);
    int64_t num_rejected ABSL_GUARDED_BY(mutex) = 0;
  };

  const Limits limits_;
  const std::shared_ptr<Taken> taken_ = std::make_shared<Taken>();
};

}  // namespace nsa
