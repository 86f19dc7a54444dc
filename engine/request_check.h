#pragma once
// Which requests an engine can serve at all.

#include <cstdint>

#include "absl/status/status.h"
#include "engine/executor.h"
#include "engine/request.h"

namespace nsa {

// Longest prompt + generation of one request: what the cache holds, and at most `max_model_tokens`
// unless that is 0.
int64_t MaxRequestTokens(const ExecutorLimits& limits, int64_t max_model_tokens);

// INVALID_ARGUMENT, with the value found and the limit: an empty prompt, max_tokens below 1, a
// token id outside the vocabulary, more tokens than one request can have.
absl::Status CheckRequest(const Request& request, const ExecutorLimits& limits,
                          int64_t max_model_tokens);

}  // namespace nsa
