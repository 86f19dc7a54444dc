#include "engine/request_check.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace nsa {
namespace {

// What one sequence can have in the cache.
int64_t CacheTokens(const ExecutorLimits& limits) {
  const int64_t num_pages = limits.max_seq_pages == 0
                                ? limits.num_pages
                                : std::min(limits.num_pages, limits.max_seq_pages);
  return num_pages * limits.page_tokens;
}

absl::Status CheckLength(const Request& request, const ExecutorLimits& limits,
                         int64_t max_model_tokens) {
  const int64_t max_request_tokens = MaxRequestTokens(limits, max_model_tokens);
  const auto num_prompt_tokens = static_cast<int64_t>(request.prompt.size());
  // Not as a sum: max_tokens may be anything.
  if (request.max_tokens <= max_request_tokens - num_prompt_tokens) return absl::OkStatus();
  const std::string limit = max_request_tokens == max_model_tokens
                                ? absl::StrCat("the model's ", max_model_tokens, " tokens")
                                : absl::StrCat("the cache's ", max_request_tokens, " tokens (",
                                               max_request_tokens / limits.page_tokens,
                                               " pages of ", limits.page_tokens, ")");
  return absl::InvalidArgumentError(absl::StrCat("a prompt of ", num_prompt_tokens,
                                                 " tokens and max_tokens ", request.max_tokens,
                                                 " together exceed ", limit));
}

}  // namespace

int64_t MaxRequestTokens(const ExecutorLimits& limits, int64_t max_model_tokens) {
  if (max_model_tokens == 0) return CacheTokens(limits);
  return std::min(max_model_tokens, CacheTokens(limits));
}

absl::Status CheckRequest(const Request& request, const ExecutorLimits& limits,
                          int64_t max_model_tokens) {
  if (request.prompt.empty()) {
    return absl::InvalidArgumentError("the prompt has 0 tokens; at least 1 is needed");
  }
  if (request.max_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens is ", request.max_tokens, "; at least 1 is needed"));
  }
  NSA_RETURN_IF_ERROR(CheckLength(request, limits, max_model_tokens));
  for (int32_t token : request.prompt) {
    if (token < 0 || token >= limits.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "token id ", token, " is outside the vocabulary, 0 to ", limits.vocab_size - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace nsa
