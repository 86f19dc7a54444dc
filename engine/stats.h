#pragma once
// What the engine measures about itself. Plain numbers; server/metrics turns them into Prometheus
// series.

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/request.h"

namespace nsa {

// A fixed-bucket histogram: counts[i] holds observations <= bounds[i] and above bounds[i-1]; the
// last one the rest.
struct Histogram {
  std::vector<double> bounds;
  std::vector<uint64_t> counts;  // bounds.size() + 1
  double sum = 0;

  explicit Histogram(std::vector<double> upper_bounds = {})
      : bounds(std::move(upper_bounds)), counts(bounds.size() + 1) {}
  // Adds one observation. A negative one (the clock was set back) counts as 0.
  void Observe(double value);
  uint64_t total() const;
};

inline constexpr int kNumFinishReasons = 6;  // values of FinishReason, kNone included

// Why requests are not queued; the last one is the number of reasons.
enum class RejectReason : uint8_t {
  kQueueFull,
  kQueuedTokens,
  kConcurrentRequests,
  kConstraintQueue,  // the server's, which counts it
  kCount,
};
inline constexpr int kNumRejectReasons = static_cast<int>(RejectReason::kCount);

struct EngineStats {
  // Gauges.
  int64_t num_running = 0;
  int64_t num_waiting = 0;
  int64_t num_preparing = 0;              // admitted, but not submitted yet
  int64_t num_started_prompt_tokens = 0;  // of requests that run, or did; each call once
  int64_t num_pages = 0;
  int64_t num_free_pages = 0;  // of num_pages, those that no sequence holds
  int64_t num_kept_pages =
      0;  // of num_free_pages, those kept for sequences with the same beginning
  bool draining = false;
  // When the last step ended, or when work reached an idle engine (or it started), if that was
  // later: with work pending, the time since then is how long the engine has been silent.
  absl::Time last_step_finished;

  // Counters since start-up.
  int64_t num_steps = 0;
  int64_t num_prompt_tokens = 0;  // of requests that left prefill, each call once
  int64_t num_generated_tokens = 0;
  int64_t num_preemptions = 0;
  int64_t num_prefix_queried_tokens = 0;  // prompt tokens of sequences, when first scheduled
  int64_t num_prefix_shared_tokens = 0;   // of them, those found in the cache
  std::array<int64_t, kNumRejectReasons> num_rejected{};  // by RejectReason
  int64_t num_admitted = 0;
  std::array<int64_t, kNumFinishReasons> num_finished{};  // by FinishReason
  KvTraffic traffic;

  // Distributions; bounds are vLLM's, in seconds or tokens.
  Histogram time_to_first_token, inter_token_latency, e2e_latency, queue_time, prefill_time,
      decode_time;
  Histogram request_prompt_tokens, request_generated_tokens, step_tokens, step_seconds;
};

// All zero, with the bounds of every histogram set. Token bounds go up to `max_request_tokens`.
EngineStats MakeEngineStats(int64_t max_request_tokens);

}  // namespace nsa
