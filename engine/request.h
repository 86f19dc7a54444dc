#pragma once
// What crosses the engine's upper boundary: requests go down, token events come back up. Token ids
// only, no text.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/sampling.h"

namespace nsa {

class CompiledConstraint;

// Chosen by the caller of Engine::Submit; unique among live requests.
using RequestId = uint64_t;

struct LogitBias {
  int32_t token = 0;
  float bias = 0;
  bool operator==(const LogitBias&) const = default;
};

// What is asked of the tokens beyond the model's logits. For a token that occurs, in this order:
// its logit is divided by repetition_penalty, or multiplied if it is not positive; then
// presence_penalty and, per occurrence, frequency_penalty are taken off; then its bias is added.
struct LogitRules {
  float presence_penalty = 0, frequency_penalty = 0;  // of tokens of the answer
  float repetition_penalty = 1;                       // > 0; of tokens of prompt and answer
  std::vector<LogitBias> bias;
  int64_t min_tokens = 0;  // no stop token among the first so many

  bool HasPenalties() const {
    return presence_penalty != 0 || frequency_penalty != 0 || repetition_penalty != 1;
  }
  bool IsEmpty() const { return !HasPenalties() && bias.empty() && min_tokens == 0; }
  bool operator==(const LogitRules&) const = default;
};

// What one step of priority is worth. Bounded, so that nobody waits for later arrivals without end.
inline constexpr absl::Duration kPriorityHeadStart = absl::Seconds(5);

// One prompt and one continuation. A client's n > 1 becomes n requests with seeds of their own, of
// which the others name the first as same_prompt_as.
struct Request {
  RequestId id = 0;
  std::vector<int32_t> prompt;          // token ids, at least one, each in [0, vocab_size)
  int64_t max_tokens = 16;              // tokens to generate at most, >= 1
  std::vector<int32_t> stop_token_ids;  // generating one of these ends the request (it is reported)
  SamplingParams sampling;
  LogitRules rules;
  // What the answer must be; null: anything. Its end-of-sequence tokens are allowed where the
  // answer satisfies it, and end the request, as does a token that nothing may follow. Where it
  // allows stop tokens alone, min_tokens gives way.
  std::shared_ptr<const CompiledConstraint> constraint;
  // A request with the same prompt that was submitted before: this one waits until that prompt is
  // in the cache and goes on from there. Without effect where prefixes are not shared.
  std::optional<RequestId> same_prompt_as;
  // Lower ones are served as if they had arrived earlier, by kPriorityHeadStart each.
  int32_t priority = 0;
  std::string cache_salt;     // cached prefixes are shared with requests of the same salt only
  bool counts_prompt = true;  // into EngineStats::num_prompt_tokens; of a call's choices, one does
  int32_t num_top_logprobs = -1;                 // as SampleRow::num_top_logprobs
  bool scores_prompt = false;                    // prompt tokens' log-probabilities are wanted
  bool traces_blocks = false;                    // TokenEvent::trace is wanted
  absl::Time arrived = absl::InfiniteFuture();   // at the server; at latest when submitted
  absl::Time deadline = absl::InfiniteFuture();  // past it the request ends with kTimeout
};

// The prompt's tokens, once per call: of its choices only one counts them.
inline int64_t PromptTokensOfCall(const Request& request) {
  return request.counts_prompt ? static_cast<int64_t>(request.prompt.size()) : 0;
}

enum class FinishReason : uint8_t { kNone, kStop, kLength, kCancelled, kTimeout, kError };

struct TopLogprob {
  int32_t token = 0;
  float logprob = 0;
};

// A prompt token as the model saw it coming; the first one has no log-probability.
struct PromptScore {
  int32_t token = 0;
  float logprob = 0;
  std::vector<TopLogprob> top_logprobs;  // most likely first
};

// When a request's phases began, InfiniteFuture until then. In the last event a phase that was not
// reached begins at `finished`.
struct RequestTimes {
  absl::Time arrived = absl::InfiniteFuture();    // at the server
  absl::Time queued = absl::InfiniteFuture();     // submitted to the engine
  absl::Time scheduled = absl::InfiniteFuture();  // first taken into a step
  absl::Time first_token = absl::InfiniteFuture();
  absl::Time finished = absl::InfiniteFuture();
  int64_t num_preemptions = 0;
};

// Bytes of cached K, V and compressed rows that decode steps loaded, and what dense attention would
// have loaded.
struct KvTraffic {
  int64_t read_bytes = 0;
  int64_t dense_bytes = 0;
  // Of one layer and KV head, each like the others; 0 where no blocks are chosen.
  int64_t chosen_blocks = 0;
  int64_t visible_blocks = 0;
};

// What a token's attention read when it was chosen. Its query is that of the token before it.
struct TokenTrace {
  int64_t position = 0;         // of the query's token in its sequence
  KvTraffic traffic;            // of a decode step at this position
  std::vector<int32_t> blocks;  // [layers, KV heads, num_selected], as SelectArgs::blocks
};

// One generated token, or the end of a request without one (cancelled, timed out, failed), or
// prefill progress, with scores of prompt tokens where they are wanted.
struct TokenEvent {
  RequestId id = 0;
  bool has_token = false;
  int32_t token = 0;
  float logprob = 0;                        // where asked for
  std::vector<TopLogprob> top_logprobs;     // most likely first; where asked for
  std::shared_ptr<const TokenTrace> trace;  // where asked for
  std::vector<PromptScore> prompt_scores;   // the next ones, from the second token on
  // With has_token and kStop: the token completes the answer and is part of it, it is not a stop
  // token.
  bool completes_answer = false;
  FinishReason finish = FinishReason::kNone;  // other than kNone: the request's last event
  // With kError, safe to show to a client: INVALID_ARGUMENT if the constraint cannot be followed
  // any further, else INTERNAL.
  absl::Status error;
  int64_t num_prompt_tokens_done = 0;    // most prompt tokens in the cache so far
  int64_t num_prompt_tokens_shared = 0;  // of them, those found in the cache at the start
  KvTraffic traffic;                     // of the request so far
  RequestTimes times;
};

// Receives the events of one request, in order, on the engine's thread. OnToken must not block and
// must not call back into the engine except Cancel. After the event whose `finish` is set it is not
// called again.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  // Comes before OnToken, for all events of a step, and before its statistics are published: they
  // count a request that ends under the reason that is returned. A stop string may have come
  // before.
  virtual FinishReason Take(const TokenEvent& event) { return event.finish; }
  virtual void OnToken(const TokenEvent& event) = 0;
};

}  // namespace nsa
