#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status.h"
#include "base/thread_name.h"
#include "engine/engine_core.h"
#include "engine/request_check.h"

namespace nsa {
namespace {

struct Submission {
  Request request;
  std::shared_ptr<TokenSink> sink;
  absl::Time queued;
};

constexpr char kShuttingDown[] = "the server is shutting down";

AdmissionLoad LoadOf(const std::vector<Request>& requests) {
  AdmissionLoad load{.num_requests = static_cast<int64_t>(requests.size())};
  for (const Request& request : requests) load.num_tokens += PromptTokensOfCall(request);
  return load;
}

}  // namespace

class Engine::Impl {
 public:
  Impl(EngineOptions options, Executor* executor)
      : options_(std::move(options)),
        limits_(executor->limits()),
        max_request_tokens_(MaxRequestTokens(limits_, options_.max_model_tokens)),
        core_(executor, max_request_tokens_, [] { return absl::Now(); }),
        stats_(core_.stats()),
        admission_(options_.admission),
        thread_([this] { Run(); }) {}

  ~Impl() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    work_arrived_.notify_one();
    thread_.join();
    NSA_CHECK_EQ(reserved_.num_requests, 0) << "a reservation has outlived the engine";
  }

  absl::Status Submit(std::vector<Request> requests, std::shared_ptr<TokenSink> sink);
  absl::Status Submit(std::vector<Request> requests, std::shared_ptr<TokenSink> sink,
                      Reservation& place);
  absl::StatusOr<std::unique_ptr<Reservation>> Reserve(AdmissionLoad wanted);
  absl::Status SetTokens(int64_t num_tokens, Reservation* place);
  std::unique_ptr<Reservation> Split(AdmissionLoad part, Reservation* place);
  void Release(const Reservation& place);
  void Cancel(RequestId id, FinishReason reason);
  void Drain(absl::Time deadline);
  EngineStats Stats() const;
  int64_t max_request_tokens() const { return max_request_tokens_; }

 private:
  void Run();
  bool TakeOrders();
  void Recount(const StepOutcome& outcome);
  void Publish(const StepOutcome& outcome);
  void ReportLoss();
  absl::Status Check(const std::vector<Request>& requests) const;
  void Enqueue(std::vector<Request> requests, const std::shared_ptr<TokenSink>& sink)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsAtRest() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  AdmissionLoad Waiting() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckLoad(AdmissionLoad wanted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const EngineOptions options_;
  const ExecutorLimits limits_;
  const int64_t max_request_tokens_;
  EngineCore core_;  // the engine thread's, once that runs

  // std::mutex, not absl::Mutex: ThreadSanitizer cannot see into a prebuilt Abseil.
  mutable std::mutex mutex_;
  std::condition_variable work_arrived_;  // for the engine thread
  std::condition_variable all_finished_;  // for Drain
  std::vector<Submission> inbox_ ABSL_GUARDED_BY(mutex_);
  // Until their end is published, with PromptTokensOfCall.
  std::unordered_map<RequestId, int64_t> live_ ABSL_GUARDED_BY(mutex_);
  int64_t num_live_tokens_ ABSL_GUARDED_BY(mutex_) = 0;  // sum over live_
  AdmissionLoad reserved_ ABSL_GUARDED_BY(mutex_);       // not in live_
  // Of live_, for the next step; the first reason given counts.
  std::unordered_map<RequestId, FinishReason> cancelled_ ABSL_GUARDED_BY(mutex_);
  EngineStats stats_ ABSL_GUARDED_BY(mutex_);  // the core's, as of the last step
  int64_t num_admitted_ ABSL_GUARDED_BY(mutex_) = 0;
  Admission admission_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_queued_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Time woken_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();  // last arrival when idle
  bool delivering_ ABSL_GUARDED_BY(mutex_) = false;  // the engine thread is calling sinks
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool lost_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelling_all_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  bool loss_reported_ = false;  // the engine thread's

  std::thread thread_;  // last: it uses everything above
};

absl::Status Engine::Impl::Check(const std::vector<Request>& requests) const {
  for (const Request& request : requests) {
    NSA_RETURN_IF_ERROR(CheckRequest(request, limits_, options_.max_model_tokens));
  }
  return absl::OkStatus();
}

absl::Status Engine::Impl::Submit(std::vector<Request> requests, std::shared_ptr<TokenSink> sink) {
  NSA_RETURN_IF_ERROR(Check(requests));
  NSA_ASSIGN_OR_RETURN(const auto place, Reserve(LoadOf(requests)));
  return Submit(std::move(requests), std::move(sink), *place);
}

absl::Status Engine::Impl::Submit(std::vector<Request> requests, std::shared_ptr<TokenSink> sink,
                                  Reservation& place) {
  NSA_RETURN_IF_ERROR(Check(requests));
  {
    const std::lock_guard lock(mutex_);
    if (lost_ || cancelling_all_) return absl::UnavailableError(kShuttingDown);
    NSA_CHECK(LoadOf(requests) == place.load_) << "not what the place was reserved for";
    reserved_ -= std::exchange(place.load_, {});
    Enqueue(std::move(requests), sink);
  }
  work_arrived_.notify_one();
  return absl::OkStatus();
}

void Engine::Impl::Enqueue(std::vector<Request> requests, const std::shared_ptr<TokenSink>& sink) {
  // A clock that is set back must not let those who come later go first.
  const absl::Time now = last_queued_ = std::max(last_queued_, absl::Now());
  if (live_.empty()) woken_ = now;
  num_admitted_ += static_cast<int64_t>(requests.size());
  for (Request& request : requests) {
    const int64_t num_tokens = PromptTokensOfCall(request);
    const bool is_new = live_.emplace(request.id, num_tokens).second;
    NSA_CHECK(is_new) << "request id " << request.id << " is live already";
    num_live_tokens_ += num_tokens;
    inbox_.push_back(Submission{.request = std::move(request), .sink = sink, .queued = now});
  }
}

absl::StatusOr<std::unique_ptr<Engine::Reservation>> Engine::Impl::Reserve(AdmissionLoad wanted) {
  const std::lock_guard lock(mutex_);
  NSA_RETURN_IF_ERROR(CheckLoad(wanted));
  reserved_ += wanted;
  return std::unique_ptr<Reservation>(new Reservation(this, wanted));
}

absl::Status Engine::Impl::SetTokens(int64_t num_tokens, Reservation* place) {
  const std::lock_guard lock(mutex_);
  AdmissionLoad& load = place->load_;
  const AdmissionLoad wanted{.num_requests = load.num_requests, .num_tokens = num_tokens};
  NSA_RETURN_IF_ERROR(admission_.CheckTokens(wanted, Waiting().num_tokens - load.num_tokens));
  reserved_.num_tokens += num_tokens - load.num_tokens;
  load = wanted;
  return absl::OkStatus();
}

std::unique_ptr<Engine::Reservation> Engine::Impl::Split(AdmissionLoad part, Reservation* place) {
  const std::lock_guard lock(mutex_);
  place->load_ -= part;
  return std::unique_ptr<Reservation>(new Reservation(this, part));
}

void Engine::Impl::Release(const Reservation& place) {
  const std::lock_guard lock(mutex_);
  reserved_ -= place.load_;
  if (IsAtRest()) all_finished_.notify_all();
}

void Engine::Impl::Cancel(RequestId id, FinishReason reason) {
  {
    const std::lock_guard lock(mutex_);
    if (!live_.contains(id)) return;
    cancelled_.emplace(id, reason);
  }
  work_arrived_.notify_one();
}

void Engine::Impl::Drain(absl::Time deadline) {
  // A wait of more than a year is one without an end; the standard library's clocks overflow.
  const absl::Duration patience = std::min(deadline - absl::Now(), absl::Hours(24 * 365));
  std::unique_lock lock(mutex_);
  draining_ = true;
  const auto none_left = [this] { return IsAtRest() && !delivering_; };
  if (all_finished_.wait_for(lock, absl::ToChronoNanoseconds(patience), none_left)) return;
  cancelling_all_ = true;
  all_finished_.wait(lock, none_left);
}

EngineStats Engine::Impl::Stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.num_waiting = Waiting().num_requests - reserved_.num_requests;
  stats.num_preparing = reserved_.num_requests;
  stats.num_admitted = num_admitted_;
  stats.num_rejected = admission_.num_rejected();
  stats.draining = draining_;
  stats.last_step_finished = std::max(stats.last_step_finished, woken_);
  return stats;
}

// Reserved, in the inbox, on the way from there, or in the scheduler's queue. The tokens of those
// that were preempted wait no more: they were let in before.
AdmissionLoad Engine::Impl::Waiting() const {
  const auto num_live = static_cast<int64_t>(live_.size());
  return {.num_requests = num_live - stats_.num_running + reserved_.num_requests,
          .num_tokens = num_live_tokens_ - stats_.num_started_prompt_tokens + reserved_.num_tokens};
}

bool Engine::Impl::IsAtRest() const { return live_.empty() && reserved_.num_requests == 0; }

absl::Status Engine::Impl::CheckLoad(AdmissionLoad wanted) {
  if (draining_ || lost_) return absl::UnavailableError(kShuttingDown);
  return admission_.Check(wanted, Waiting(), stats_.num_running);
}

void Engine::Impl::Run() {
  NameThisThread("nsa-engine");
  for (bool running = true; running;) {
    running = TakeOrders();
    const StepOutcome outcome = core_.Step();
    if (!outcome.status.ok()) NSA_LOG_ERROR << "a step failed: " << outcome.status.ToString();
    Recount(outcome);
    Publish(outcome);
    for (const Delivery& delivery : outcome.deliveries) delivery.sink->OnToken(delivery.event);
    if (outcome.lost && !std::exchange(loss_reported_, true)) ReportLoss();
  }
}

// Sleeps until there is work, then brings new requests and cancellations to the core. False when
// the engine is being destroyed; everything is cancelled then.
bool Engine::Impl::TakeOrders() {
  std::vector<Submission> submissions;
  std::unordered_map<RequestId, FinishReason> cancelled;
  bool cancel_all = false;
  bool stop = false;
  {
    std::unique_lock lock(mutex_);
    delivering_ = false;
    if (IsAtRest()) all_finished_.notify_all();
    work_arrived_.wait(lock, [this] { return stopping_ || !inbox_.empty() || !core_.idle(); });
    submissions.swap(inbox_);
    cancelled.swap(cancelled_);
    cancel_all = cancelling_all_ || stopping_;
    stop = stopping_;
  }
  for (Submission& submission : submissions) {
    core_.Submit(std::move(submission.request), std::move(submission.sink), submission.queued);
  }
  for (const auto& [id, reason] : cancelled) core_.Cancel(id, reason);
  if (cancel_all) core_.CancelAll();
  return !stop;
}

// Under what its owner says of its end.
void Engine::Impl::Recount(const StepOutcome& outcome) {
  for (const Delivery& delivery : outcome.deliveries) {
    const FinishReason reason = delivery.sink->Take(delivery.event);
    if (reason != delivery.event.finish) core_.Recount(delivery.event.finish, reason);
  }
}

// Makes a step's outcome visible before any sink is told of it.
void Engine::Impl::Publish(const StepOutcome& outcome) {
  const std::lock_guard lock(mutex_);
  stats_ = core_.stats();
  delivering_ = true;
  lost_ = outcome.lost;
  for (const Delivery& delivery : outcome.deliveries) {
    if (delivery.event.finish == FinishReason::kNone) continue;
    const auto ended = live_.find(delivery.event.id);
    if (ended == live_.end()) continue;
    num_live_tokens_ -= ended->second;
    live_.erase(ended);
    // It came too late, and the id may be used again before the next step.
    cancelled_.erase(delivery.event.id);
  }
}

void Engine::Impl::ReportLoss() {
  NSA_LOG_ERROR << "the device is lost: no request can run any more";
  if (options_.on_lost) options_.on_lost();
}

Engine::Engine(EngineOptions options, Executor* executor)
    : impl_(std::make_unique<Impl>(std::move(options), executor)) {}

Engine::~Engine() = default;

absl::Status Engine::Submit(std::vector<Request> requests, std::shared_ptr<TokenSink> sink) {
  return impl_->Submit(std::move(requests), std::move(sink));
}

absl::Status Engine::Submit(std::vector<Request> requests, std::shared_ptr<TokenSink> sink,
                            Reservation& place) {
  return impl_->Submit(std::move(requests), std::move(sink), place);
}

absl::StatusOr<std::unique_ptr<Engine::Reservation>> Engine::Reserve(AdmissionLoad wanted) {
  return impl_->Reserve(wanted);
}

Engine::Reservation::~Reservation() { engine_->Release(*this); }

absl::Status Engine::Reservation::SetTokens(int64_t num_tokens) {
  return engine_->SetTokens(num_tokens, this);
}

std::unique_ptr<Engine::Reservation> Engine::Reservation::Split(AdmissionLoad part) {
  return engine_->Split(part, this);
}

void Engine::Cancel(RequestId id, FinishReason reason) { impl_->Cancel(id, reason); }

void Engine::Drain(absl::Time deadline) { impl_->Drain(deadline); }

EngineStats Engine::Stats() const { return impl_->Stats(); }

int64_t Engine::max_request_tokens() const { return impl_->max_request_tokens(); }

}  // namespace nsa
