#pragma once
// EngineCore: the engine's work without its thread. Everything here happens on one thread, and time
// comes from the clock that is passed in, so that a test can drive it step by step.

#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/batch_builder.h"
#include "engine/executor.h"
#include "engine/mask_worker.h"
#include "engine/request.h"
#include "engine/scheduler.h"
#include "engine/stats.h"

namespace nsa {

// An event on its way to its sink. Kept apart from the call so that the owner can publish the
// statistics, and let go of its locks, first.
struct Delivery {
  std::shared_ptr<TokenSink> sink;
  TokenEvent event;
};

struct StepOutcome {
  std::vector<Delivery> deliveries;  // the events since the last step, in order
  absl::Status status;  // the executor's and its step's size; for the log: it may name internals
  bool lost = false;    // the executor is lost: every request has ended, and no other can run
};

class EngineCore {
 public:
  // The executor must outlive the core. Token histograms go up to max_request_tokens.
  EngineCore(Executor* executor, int64_t max_request_tokens, std::function<absl::Time()> clock);

  // Queues a request that CheckRequest accepts, with an id that no live request has.
  void Submit(Request request, std::shared_ptr<TokenSink> sink, absl::Time queued);
  // Ends the request with `reason`; its pages are free on return, its last event comes with the
  // next step. An id that is not live is ignored.
  void Cancel(RequestId id, FinishReason reason = FinishReason::kCancelled);
  void CancelAll();

  // Plans and launches a step, then waits for the oldest one in flight and commits it; with an
  // executor that runs ahead that is the step before, so that it never waits for this thread. Edits
  // that depend on the tokens of that one are launched behind it, beside the forward pass. What a
  // step computed for a sequence that had ended by then is dropped. If a step fails, its
  // sequences end with kError, or only those whose logits are not finite; the others go on unless
  // the executor is lost. A sequence whose constraint cannot be followed ends alone.
  StepOutcome Step();

  // A request that ended with `from` counts as one that ended with `to`.
  void Recount(FinishReason from, FinishReason to);

  bool idle() const { return sequences_.empty() && deliveries_.empty() && in_flight_.empty(); }
  // Counters since construction, and gauges as of now. Of what is decided before a request gets
  // here (admissions, rejections, draining) it knows nothing.
  const EngineStats& stats() const { return stats_; }
  const Scheduler& scheduler() const { return scheduler_; }

 private:
  struct Flight {
    StepPlan plan;
    absl::Time launched;
    int64_t longest_tokens = 0;  // of the plan's sequences
    bool has_edits = false;      // which are launched apart
  };

  bool Launch();
  void LaunchSampling();
  absl::Status Collect();
  void Fail(Sequence& sequence, absl::Time now);
  void FailAll(absl::Time now);
  absl::Status Commit(const Flight& flight, std::vector<SampledToken> sampled, absl::Time now);
  void CommitToken(const ScheduledChunk& chunk, SampledToken sampled, absl::Time now);
  void AskForMasks();
  static absl::Status StepError(const Flight& flight, const absl::Status& error);
  void ReportScores(Sequence& sequence, std::span<SampledToken> scores);
  void CountTraffic(Sequence& sequence);
  void ReportProgress(Sequence& sequence, int64_t num_cached_tokens);
  // These two destroy a sequence that has finished, with Forget; so does Fail.
  void ReportToken(const ScheduledChunk& chunk, SampledToken sampled, absl::Time now);
  void ReportEnd(Sequence& sequence, absl::Status error, absl::Time now);
  void RecordEnd(Sequence& sequence, absl::Time now);
  void Forget(const Sequence& sequence);
  TokenEvent& AddEvent(const Sequence& sequence);
  void UpdateGauges();
  void CountStartedPrompts();  // once per step: it goes through all requests

  Executor* const executor_;
  const std::function<absl::Time()> clock_;
  Scheduler scheduler_;
  BatchBuilder batch_builder_;
  std::deque<Flight> in_flight_;                                        // oldest first
  std::unordered_map<RequestId, std::unique_ptr<Sequence>> sequences_;  // the live ones
  std::vector<Delivery> deliveries_;                                    // since the last step
  MaskWorker mask_worker_;
  std::vector<std::shared_ptr<ConstrainedOutput>> masks_wanted_;  // by the step being committed
  EngineStats stats_;
};

}  // namespace nsa
