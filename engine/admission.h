#pragma once
// Admission: whether requests may be queued. Counts those that may not, by reason.

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "engine/stats.h"

namespace nsa {

struct AdmissionLimits {
  int64_t max_queued_requests = 256;  // waiting ones, beyond those running
  // Prompt tokens of requests that have not run yet, 0: no limit. However long, a request may be
  // the only one.
  int64_t max_queued_tokens = 0;
  int64_t max_concurrent_requests = 0;  // waiting and running ones, 0: no limit
};

// Requests with the tokens of their prompts. Of a call's choices only one counts its prompt.
struct AdmissionLoad {
  int64_t num_requests = 0;
  int64_t num_tokens = 0;

  bool operator==(const AdmissionLoad&) const = default;
  AdmissionLoad& operator+=(AdmissionLoad more) {
    num_requests += more.num_requests;
    num_tokens += more.num_tokens;
    return *this;
  }
  AdmissionLoad& operator-=(AdmissionLoad less) {
    num_requests -= less.num_requests;
    num_tokens -= less.num_tokens;
    return *this;
  }
};

// Not thread-safe.
class Admission {
 public:
  explicit Admission(AdmissionLimits limits) : limits_(limits) {}

  // OK if `wanted` may be queued all together. INVALID_ARGUMENT: they never may, being more
  // requests than a limit; RESOURCE_EXHAUSTED: not now.
  absl::Status Check(AdmissionLoad wanted, AdmissionLoad waiting, int64_t num_running);

  // The tokens alone: of requests that are queued already, whose prompts were not known.
  absl::Status CheckTokens(AdmissionLoad wanted, int64_t num_waiting_tokens);

  // Requests refused as not now, by RejectReason.
  const std::array<int64_t, kNumRejectReasons>& num_rejected() const { return num_rejected_; }

 private:
  absl::Status Reject(RejectReason reason, int64_t num_requests, const std::string& message);

  const AdmissionLimits limits_;
  std::array<int64_t, kNumRejectReasons> num_rejected_{};
};

}  // namespace nsa
