#include "engine/admission.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace nsa {
namespace {

// More choices than could ever be queued at once.
absl::Status CheckPossible(int64_t num_requests, int64_t limit, const char* flag) {
  if (num_requests <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(num_requests, " choices are asked for; at most ",
                                                 limit, " can be queued (", flag, ")"));
}

}  // namespace

absl::Status Admission::Check(AdmissionLoad wanted, AdmissionLoad waiting, int64_t num_running) {
  const AdmissionLimits& limits = limits_;
  const int64_t num_wanted = wanted.num_requests;
  NSA_RETURN_IF_ERROR(
      CheckPossible(num_wanted, limits.max_queued_requests, "--max-queued-requests"));
  if (limits.max_concurrent_requests > 0) {
    NSA_RETURN_IF_ERROR(
        CheckPossible(num_wanted, limits.max_concurrent_requests, "--max-concurrent-requests"));
  }
  if (num_wanted > limits.max_queued_requests - waiting.num_requests) {
    return Reject(RejectReason::kQueueFull, num_wanted,
                  absl::StrCat(waiting.num_requests, " of at most ", limits.max_queued_requests,
                               " requests are waiting; ", num_wanted, " more cannot be queued"));
  }
  NSA_RETURN_IF_ERROR(CheckTokens(wanted, waiting.num_tokens));
  const int64_t num_live = waiting.num_requests + num_running;
  if (limits.max_concurrent_requests > 0 &&
      num_wanted > limits.max_concurrent_requests - num_live) {
    return Reject(RejectReason::kConcurrentRequests, num_wanted,
                  absl::StrCat(num_live, " of at most ", limits.max_concurrent_requests,
                               " requests are in progress; ", num_wanted, " more cannot be taken"));
  }
  return absl::OkStatus();
}

absl::Status Admission::CheckTokens(AdmissionLoad wanted, int64_t num_waiting_tokens) {
  const int64_t limit = limits_.max_queued_tokens;
  if (limit <= 0 || num_waiting_tokens <= 0 || wanted.num_tokens <= limit - num_waiting_tokens) {
    return absl::OkStatus();
  }
  return Reject(RejectReason::kQueuedTokens, wanted.num_requests,
                absl::StrCat("requests with ", num_waiting_tokens, " prompt tokens, of at most ",
                             limit, ", are waiting"));
}

absl::Status Admission::Reject(RejectReason reason, int64_t num_requests,
                               const std::string& message) {
  num_rejected_[static_cast<size_t>(reason)] += num_requests;
  return absl::ResourceExhaustedError(message);
}

}  // namespace nsa
