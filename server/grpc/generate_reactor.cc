#include "server/grpc/generate_reactor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/error_detail.h"
#include "server/grpc/messages.h"
#include "server/grpc/wire.h"

namespace nsa {

std::shared_ptr<GenerateReactor> GenerateReactor::Make(GenerationService* service,
                                                       Options options) {
  std::shared_ptr<GenerateReactor> reactor(new GenerateReactor(service, std::move(options)));
  reactor->self_ = reactor;
  return reactor;
}

bool GenerateReactor::is_ending() {
  const std::lock_guard lock(mutex_);
  return is_ending_;
}

void GenerateReactor::Begin(const absl::StatusOr<GenerateCall>& call) {
  if (is_ending()) return;
  if (!call.ok()) return Run(call.status());
  options_.record->SetCalls({&*call, 1});
  absl::StatusOr<std::vector<PreparedCall>> prepared =
      service_->Prepare({&*call, 1}, options_.record->begun());
  if (!prepared.ok()) return Run(prepared.status());
  const ConstraintQueue::Ticket ticket = service_->Complete(
      *std::move(prepared),
      [self = shared_from_this()](auto completed) { self->Run(std::move(completed)); });
  bool has_left = false;
  {
    const std::lock_guard lock(mutex_);
    ticket_ = ticket;
    has_left = is_ending_;
  }
  if (has_left) service_->CancelCompletion(ticket);
}

// Events may arrive before the service returns the handle, so the lock is not held meanwhile.
void GenerateReactor::Run(absl::StatusOr<std::vector<PreparedCall>> completed) {
  {
    const std::lock_guard lock(mutex_);
    if (is_ending_) return;  // abandoned meanwhile
    is_preparing_ = false;
  }
  const int64_t num_choices = completed.ok() ? completed->front().num_choices : 0;
  absl::StatusOr<std::unique_ptr<GenerateHandle>> handle =
      completed.ok() ? service_->Start(std::move(completed->front()), shared_from_this())
                     : completed.status();
  const std::lock_guard lock(mutex_);
  if (!handle.ok()) {
    EndWith(handle.status());
    Proceed();
    return;
  }
  options_.record->AddChoices(num_choices);
  handle_ = *std::move(handle);
  if (is_abandoned_ || is_ending_) handle_->Cancel();
}

void GenerateReactor::OnEvent(GenerateEvent event) {
  options_.record->OnEvent(0, event);
  const std::lock_guard lock(mutex_);
  if (is_ending_) return;
  const bool is_done = event.kind == GenerateEvent::Kind::kDone;
  if (event.kind == GenerateEvent::Kind::kError) {
    EndWith(event.error);
  } else if (!is_done && num_queued_bytes_ >= options_.max_queued_bytes) {
    options_.record->SetError("client_too_slow");
    EndWith(absl::ResourceExhaustedError(
        absl::StrCat("the client reads too slowly: ", num_queued_bytes_, " bytes are waiting")));
    ClearQueue();
    if (handle_ != nullptr) handle_->Cancel();
  } else {
    queue_.push_back(ToWire(ToGenerateResponse(std::move(event))));
    num_queued_bytes_ += static_cast<int64_t>(queue_.back().Length());
    if (is_done) EndWith(absl::OkStatus());
  }
  Proceed();
}

void GenerateReactor::EndWith(const absl::Status& status) {
  is_ending_ = true;
  end_status_ = ToGrpcStatus(status);
  options_.record->SetGrpcStatus(status.code());
  options_.record->SetError(GetDetail(status).code);
}

void GenerateReactor::Proceed() {
  if (is_writing_ || is_finished_) return;
  if (!queue_.empty()) {
    in_flight_.Swap(&queue_.front());
    queue_.pop_front();
    num_queued_bytes_ -= static_cast<int64_t>(in_flight_.Length());
    is_writing_ = true;
    StartWrite(&in_flight_);
  } else if (is_ending_) {
    is_finished_ = true;
    options_.on_end(end_status_);
    Finish(end_status_);
  }
}

void GenerateReactor::OnWriteDone(bool ok) {
  const std::lock_guard lock(mutex_);
  is_writing_ = false;
  if (!ok) Abandon();
  Proceed();
}

void GenerateReactor::OnCancel() {
  ConstraintQueue::Ticket ticket = ConstraintQueue::kNoTicket;
  {
    const std::lock_guard lock(mutex_);
    ticket = ticket_;
    Abandon();
    Proceed();
  }
  if (ticket != ConstraintQueue::kNoTicket) service_->CancelCompletion(ticket);
}

// The client is gone. The engine confirms the cancellation with a last event, which ends the call,
// unless it does not know the call yet.
void GenerateReactor::Abandon() {
  if (!is_ending_) options_.record->SetError("client_left");
  is_abandoned_ = true;
  ClearQueue();
  if (handle_ != nullptr) handle_->Cancel();
  if (is_preparing_) EndWith(absl::CancelledError("the request was cancelled"));
}

void GenerateReactor::ClearQueue() {
  queue_.clear();
  num_queued_bytes_ = 0;
}

void GenerateReactor::OnDone() {
  options_.record->End();
  self_.reset();
}

}  // namespace nsa
