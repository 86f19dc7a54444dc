#pragma once
// Caller: a protocol of the load generator.

#include <functional>

#include "bench/serving/call_record.h"
#include "bench/serving/workload.h"

namespace nsa::bench {

class Caller {
 public:
  using Done = std::function<void(CallRecord)>;

  virtual ~Caller() = default;
  // Makes one call. `done` gets the record, with `arrival` as it was, on the thread of the loop
  // that the caller was made with, never from inside this call.
  virtual void Start(const PlannedCall& call, Clock::time_point arrival, Done done) = 0;
};

}  // namespace nsa::bench
