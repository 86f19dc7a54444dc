#include "engine/engine_core.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace nsa {
namespace {

double Seconds(absl::Time from, absl::Time to) { return absl::ToDoubleSeconds(to - from); }

void Add(const KvTraffic& more, KvTraffic& sum) {
  sum.read_bytes += more.read_bytes;
  sum.dense_bytes += more.dense_bytes;
  sum.chosen_blocks += more.chosen_blocks;
  sum.visible_blocks += more.visible_blocks;
}

constexpr char kTooAmbiguous[] = "the constraint became too ambiguous for its limits";

bool IsFinite(const SampledToken& token) { return token.finite; }

}  // namespace

EngineCore::EngineCore(Executor* executor, int64_t max_request_tokens,
                       std::function<absl::Time()> clock)
    : executor_(executor),
      clock_(std::move(clock)),
      scheduler_(executor->limits()),
      batch_builder_(executor->limits()),
      stats_(MakeEngineStats(max_request_tokens)) {
  stats_.last_step_finished = clock_();
  UpdateGauges();
}

void EngineCore::Submit(Request request, std::shared_ptr<TokenSink> sink, absl::Time queued) {
  const RequestId id = request.id;
  auto sequence = std::make_unique<Sequence>(std::move(request), std::move(sink), queued);
  const auto [entry, inserted] = sequences_.emplace(id, std::move(sequence));
  NSA_CHECK(inserted) << "request id " << id << " is live already";
  if (const auto& output = entry->second->constrained_output; output != nullptr) {
    mask_worker_.Compute({&output, 1});
  }
  scheduler_.Enqueue(entry->second.get());
  UpdateGauges();
}

void EngineCore::Cancel(RequestId id, FinishReason reason) {
  const auto entry = sequences_.find(id);
  if (entry == sequences_.end()) return;
  scheduler_.Remove(entry->second.get(), reason);
  ReportEnd(*entry->second, absl::OkStatus(), clock_());
  UpdateGauges();
}

void EngineCore::CancelAll() {
  std::vector<RequestId> ids;
  for (const Sequence* sequence : scheduler_.running()) ids.push_back(sequence->request.id);
  for (const Sequence* sequence : scheduler_.waiting()) ids.push_back(sequence->request.id);
  for (RequestId id : ids) Cancel(id);
}

StepOutcome EngineCore::Step() {
  StepOutcome outcome;
  const bool launched = Launch();
  if (in_flight_.size() > (launched ? 1U : 0U)) outcome.status = Collect();
  if (launched) LaunchSampling();
  if (in_flight_.size() > static_cast<size_t>(executor_->max_steps_ahead())) {
    outcome.status.Update(Collect());
  }
  if (executor_->is_lost()) {
    outcome.lost = true;
    FailAll(clock_());
  }
  UpdateGauges();
  CountStartedPrompts();
  outcome.deliveries.swap(deliveries_);
  return outcome;
}

// Plans a step and launches it up to its edits; false if there is nothing to launch.
bool EngineCore::Launch() {
  const absl::Time now = clock_();
  StepPlan plan = scheduler_.Plan(now);
  for (Sequence* sequence : plan.expired) ReportEnd(*sequence, absl::OkStatus(), now);
  stats_.num_preemptions += plan.num_preemptions;
  stats_.num_prefix_queried_tokens += plan.num_queried_tokens;
  stats_.num_prefix_shared_tokens += plan.num_shared_tokens;
  if (plan.chunks.empty()) {
    NSA_CHECK(scheduler_.idle() || !in_flight_.empty()) << "no sequence can advance";
    return false;
  }
  const Batch& batch = batch_builder_.Build(plan);
  executor_->Launch(batch);
  scheduler_.Launched(plan);
  int64_t longest = 0;
  for (const ScheduledChunk& chunk : plan.chunks) longest = std::max(longest, chunk.end_tokens);
  in_flight_.push_back({.plan = std::move(plan),
                        .launched = now,
                        .longest_tokens = longest,
                        .has_edits = batch.num_edited_rows > 0});
  return true;
}

// Of the step launched last, with the one before it committed.
void EngineCore::LaunchSampling() {
  const Flight& flight = in_flight_.back();
  if (flight.has_edits) executor_->LaunchSampling(batch_builder_.BuildEdits(flight.plan));
}

// Waits for the oldest step in flight and commits it.
absl::Status EngineCore::Collect() {
  absl::StatusOr<std::vector<SampledToken>> sampled = executor_->Collect();
  const Flight flight = std::move(in_flight_.front());
  in_flight_.pop_front();
  const absl::Time now = clock_();
  ++stats_.num_steps;
  stats_.step_tokens.Observe(static_cast<double>(flight.plan.num_tokens));
  // It began when it was launched, or when the step before it ended.
  stats_.step_seconds.Observe(Seconds(std::max(flight.launched, stats_.last_step_finished), now));
  stats_.last_step_finished = now;
  scheduler_.Ended(sampled.ok());
  if (sampled.ok()) return Commit(flight, *std::move(sampled), now);
  for (const ScheduledChunk& chunk : flight.plan.chunks) {
    if (chunk.sequence != nullptr) Fail(*chunk.sequence, now);
  }
  return StepError(flight, sampled.status());
}

// A step's error with what was in the step.
absl::Status EngineCore::StepError(const Flight& flight, const absl::Status& error) {
  return absl::Status(error.code(),
                      absl::StrCat(error.message(), " (a step of ", flight.plan.num_tokens,
                                   " tokens of ", flight.plan.chunks.size(),
                                   " sequences, the longest of ", flight.longest_tokens, ")"));
}

void EngineCore::Fail(Sequence& sequence, absl::Time now) {
  scheduler_.ForgetPages(sequence);
  scheduler_.Remove(&sequence, FinishReason::kError);
  ReportEnd(sequence, absl::InternalError("the model failed while serving this request"), now);
}

// Ends everything after the executor was lost; steps in flight are lost with it.
void EngineCore::FailAll(absl::Time now) {
  in_flight_.clear();
  std::vector<Sequence*> left(scheduler_.running());
  left.insert(left.end(), scheduler_.waiting().begin(), scheduler_.waiting().end());
  for (Sequence* sequence : left) Fail(*sequence, now);
}

absl::Status EngineCore::Commit(const Flight& flight, std::vector<SampledToken> sampled,
                                absl::Time now) {
  size_t row = 0;
  int64_t num_failed = 0;
  for (const ScheduledChunk& chunk : flight.plan.chunks) {
    const std::span<SampledToken> scores(sampled.begin() + static_cast<int64_t>(row),
                                         chunk.num_scored);
    row += chunk.num_scored;
    SampledToken* const token = chunk.samples ? &sampled.at(row++) : nullptr;
    if (chunk.sequence == nullptr) continue;
    Sequence& sequence = *chunk.sequence;
    if (!std::all_of(scores.begin(), scores.end(), IsFinite) || (token && !token->finite)) {
      ++num_failed;
      Fail(sequence, now);
      continue;
    }
    ReportScores(sequence, scores);
    if (chunk.is_decode) CountTraffic(sequence);
    if (token == nullptr) {
      scheduler_.Commit(chunk, std::nullopt);
      const bool is_cached = chunk.preemptions == sequence.times.num_preemptions;
      if (is_cached) ReportProgress(sequence, chunk.end_tokens);
    } else {
      CommitToken(chunk, std::move(*token), now);
    }
  }
  NSA_CHECK_EQ(row, sampled.size());
  AskForMasks();
  if (num_failed == 0) return absl::OkStatus();
  return StepError(
      flight, absl::InternalError(absl::StrCat("the logits of ", num_failed, " of ", sampled.size(),
                                               " rows are not finite")));
}

// Not before all tokens are committed: outputs of one constraint share a lock. A step that was
// launched ahead is sampled next, and its masks are read for it.
void EngineCore::AskForMasks() {
  if (in_flight_.empty()) {
    mask_worker_.Compute(masks_wanted_);
  } else {
    mask_worker_.ComputeBesideReader(masks_wanted_);
  }
  masks_wanted_.clear();
}

void EngineCore::CommitToken(const ScheduledChunk& chunk, SampledToken sampled, absl::Time now) {
  Sequence& sequence = *chunk.sequence;
  const std::shared_ptr<ConstrainedOutput> output = sequence.constrained_output;
  if (output != nullptr) {
    if (absl::Status status = output->MaskStatus(); !status.ok()) {
      scheduler_.Remove(&sequence, FinishReason::kError);
      return ReportEnd(sequence, std::move(status), now);
    }
  }
  scheduler_.Commit(chunk, sampled.token);
  if (sequence.finish == FinishReason::kError) {
    return ReportEnd(sequence, absl::InvalidArgumentError(kTooAmbiguous), now);
  }
  const bool goes_on = sequence.finish == FinishReason::kNone;
  ReportToken(chunk, std::move(sampled), now);
  if (goes_on && output != nullptr) masks_wanted_.push_back(output);
}

// Scores of prompt tokens, once each: a preempted sequence scores again only what was not reported.
void EngineCore::ReportScores(Sequence& sequence, std::span<SampledToken> scores) {
  if (scores.empty()) return;
  TokenEvent& event = AddEvent(sequence);
  for (SampledToken& score : scores) {
    event.prompt_scores.push_back({.token = score.token,
                                   .logprob = score.logprob,
                                   .top_logprobs = std::move(score.top_logprobs)});
  }
}

void EngineCore::CountTraffic(Sequence& sequence) {
  const KvTraffic step = executor_->DecodeTraffic(sequence.num_tokens());
  Add(step, sequence.traffic);
  Add(step, stats_.traffic);
}

void EngineCore::ReportProgress(Sequence& sequence, int64_t num_cached_tokens) {
  const int64_t num_done = std::min(num_cached_tokens, sequence.num_prompt_tokens);
  if (num_done <= sequence.num_prompt_tokens_reported) return;
  sequence.num_prompt_tokens_reported = num_done;
  AddEvent(sequence);
}

void EngineCore::ReportToken(const ScheduledChunk& chunk, SampledToken sampled, absl::Time now) {
  Sequence& sequence = *chunk.sequence;
  ++stats_.num_generated_tokens;
  if (sequence.num_generated_tokens() == 1) {
    if (sequence.request.counts_prompt) stats_.num_prompt_tokens += sequence.num_prompt_tokens;
    sequence.num_prompt_tokens_reported = sequence.num_prompt_tokens;
    sequence.times.first_token = now;
    stats_.time_to_first_token.Observe(Seconds(sequence.times.arrived, now));
  } else {
    stats_.inter_token_latency.Observe(Seconds(sequence.last_token, now));
  }
  sequence.last_token = now;
  const bool is_last = sequence.finish != FinishReason::kNone;
  const bool is_stop_token = is_last && sequence.is_stop_token(sampled.token);
  if (is_last) RecordEnd(sequence, now);
  TokenEvent& event = AddEvent(sequence);
  event.has_token = true;
  event.token = sampled.token;
  event.completes_answer = sequence.finish == FinishReason::kStop && !is_stop_token;
  event.logprob = sampled.logprob;
  event.top_logprobs = std::move(sampled.top_logprobs);
  if (sequence.request.traces_blocks) {
    event.trace = std::make_shared<TokenTrace>(
        TokenTrace{.position = chunk.end_tokens - 1,
                   .traffic = executor_->DecodeTraffic(chunk.end_tokens),
                   .blocks = std::move(sampled.blocks)});
  }
  if (is_last) Forget(sequence);
}

void EngineCore::ReportEnd(Sequence& sequence, absl::Status error, absl::Time now) {
  RecordEnd(sequence, now);
  TokenEvent& event = AddEvent(sequence);
  event.error = std::move(error);
  Forget(sequence);
}

// Destroys a sequence that has ended; what steps in flight compute for it will be dropped.
void EngineCore::Forget(const Sequence& sequence) {
  for (Flight& flight : in_flight_) {
    for (ScheduledChunk& chunk : flight.plan.chunks) {
      if (chunk.sequence == &sequence) chunk.sequence = nullptr;
    }
  }
  sequences_.erase(sequence.request.id);
}

void EngineCore::RecordEnd(Sequence& sequence, absl::Time now) {
  RequestTimes& times = sequence.times;
  times.finished = now;
  if (times.scheduled < absl::InfiniteFuture()) {
    stats_.queue_time.Observe(Seconds(times.queued, times.scheduled));
  }
  if (times.first_token < absl::InfiniteFuture()) {
    stats_.prefill_time.Observe(Seconds(times.scheduled, times.first_token));
    stats_.decode_time.Observe(Seconds(times.first_token, now));
  }
  times.scheduled = std::min(times.scheduled, now);
  times.first_token = std::min(times.first_token, now);
  ++stats_.num_finished[static_cast<size_t>(sequence.finish)];
  stats_.e2e_latency.Observe(Seconds(times.arrived, now));
  stats_.request_prompt_tokens.Observe(static_cast<double>(sequence.num_prompt_tokens));
  stats_.request_generated_tokens.Observe(static_cast<double>(sequence.num_generated_tokens()));
}

void EngineCore::Recount(FinishReason from, FinishReason to) {
  --stats_.num_finished[static_cast<size_t>(from)];
  ++stats_.num_finished[static_cast<size_t>(to)];
}

// An event with what every event of the sequence carries.
TokenEvent& EngineCore::AddEvent(const Sequence& sequence) {
  TokenEvent& event = deliveries_.emplace_back(Delivery{.sink = sequence.sink, .event = {}}).event;
  event.id = sequence.request.id;
  event.finish = sequence.finish;
  event.num_prompt_tokens_done = sequence.num_prompt_tokens_reported;
  event.num_prompt_tokens_shared = sequence.num_prompt_tokens_shared;
  event.traffic = sequence.traffic;
  event.times = sequence.times;
  return event;
}

void EngineCore::UpdateGauges() {
  stats_.num_running = static_cast<int64_t>(scheduler_.running().size());
  stats_.num_waiting = static_cast<int64_t>(scheduler_.waiting().size());
  stats_.num_pages = scheduler_.pages().num_pages();
  stats_.num_free_pages = scheduler_.pages().num_free();
  stats_.num_kept_pages = scheduler_.pages().num_kept();
}

void EngineCore::CountStartedPrompts() {
  stats_.num_started_prompt_tokens = 0;
  for (const auto& [id, sequence] : sequences_) {
    const bool has_started = sequence->times.scheduled < absl::InfiniteFuture();
    if (has_started && sequence->request.counts_prompt) {
      stats_.num_started_prompt_tokens += sequence->num_prompt_tokens;
    }
  }
}

}  // namespace nsa
