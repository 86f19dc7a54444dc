#pragma once
// Sequence: one request inside the engine: its tokens, what of them is cached and where, and what
// was reported.

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "engine/cache/page_pool.h"
#include "engine/constrained_output.h"
#include "engine/logit_editor.h"
#include "engine/request.h"

namespace nsa {

enum class SequenceState : uint8_t {
  kWaiting,   // nothing cached; holds no pages
  kPrefill,   // admitted; known tokens are still being cached
  kDecode,    // all tokens are cached or in flight, but for the last known one
  kFinished,  // `finish` is set; holds nothing
};

inline constexpr int32_t kNoRow = -1;

// The engine thread owns it. The scheduler changes state, cache fields and tokens; the engine core
// the rest.
struct Sequence {
  // Takes over the request's prompt as the first known tokens.
  Sequence(Request new_request, std::shared_ptr<TokenSink> new_sink, absl::Time queued);

  Request request;  // its prompt is empty: see `tokens`
  std::shared_ptr<TokenSink> sink;
  int64_t num_prompt_tokens;
  std::vector<int32_t> tokens;              // known ones: the prompt, then what was generated
  std::optional<LogitEditor> logit_editor;  // of a request with rules; follows `tokens`
  // Of a request with a constraint; follows the generated tokens. Shared with the thread that
  // computes its masks, which may hold it longer.
  std::shared_ptr<ConstrainedOutput> constrained_output;

  SequenceState state = SequenceState::kWaiting;
  int64_t arrival = 0;              // arrivals before it, as the scheduler counts
  int64_t num_cached_tokens = 0;    // by the steps launched so far
  std::vector<PageId> pages;        // of the cached tokens and of those scheduled in this step
  std::deque<PageId> recent_pages;  // from page first_recent_page of the sequence on
  int64_t first_recent_page = 0;
  // The first of its pages that are in the prefix index, and the entry of the last of them.
  int64_t num_indexed_pages = 0;
  uint64_t last_indexed_entry = 0;
  int64_t num_pending_tokens = 0;  // sampled by steps in flight: they exist, but are not known
  int32_t pending_row = kNoRow;    // of the step launched last, which samples the last of them

  FinishReason finish = FinishReason::kNone;
  RequestTimes times;
  absl::Time last_token;                   // when the last generated token was known
  int64_t num_prompt_tokens_shared = 0;    // found in the cache when it was first scheduled
  int64_t num_scored_tokens = 0;           // of the prompt, by the steps that ended
  int64_t num_prompt_tokens_reported = 0;  // never falls, though preemption empties the cache
  KvTraffic traffic;

  // Its place: sequences of lower rank are served first, those of the same one in order of arrival.
  absl::Time rank() const { return times.queued + request.priority * kPriorityHeadStart; }
  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  int64_t num_generated_tokens() const { return num_tokens() - num_prompt_tokens; }
  // Known ones and those in flight.
  int64_t num_coming_tokens() const { return num_tokens() + num_pending_tokens; }
  int64_t num_uncached_tokens() const { return num_coming_tokens() - num_cached_tokens; }
  // The logits of the token behind those in flight may be edited, once these are known.
  bool edits_logits() const {
    return constrained_output != nullptr ||
           (logit_editor.has_value() && logit_editor->MayEdit(num_pending_tokens));
  }
  // Prompt tokens whose scores are wanted and neither there nor in flight.
  bool has_unscored_tokens() const {
    return request.scores_prompt &&
           std::max(num_cached_tokens, num_scored_tokens) + 1 < num_prompt_tokens;
  }
  // The last token that it may have is in flight.
  bool awaits_end() const { return num_coming_tokens() - num_prompt_tokens >= request.max_tokens; }

  // Appends a generated token; kStop or kLength if it is the last one, else kNone. kError: it has
  // no place in the constraint.
  FinishReason Append(int32_t token);
  // True for one that ends the answer without being part of it.
  bool is_stop_token(int32_t token) const;
};

}  // namespace nsa
