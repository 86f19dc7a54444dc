#include "server/http/generation_exchange.h"

#include <iterator>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "server/error_detail.h"
#include "server/http/errors.h"
#include "server/http/sse.h"

namespace nsa {

// Carries one prompt's events from the engine's thread to the connection's.
class GenerationExchange::Observer final : public GenerateObserver {
 public:
  Observer(std::shared_ptr<GenerationExchange> exchange, size_t prompt)
      : exchange_(std::move(exchange)), prompt_(prompt) {}

  void OnEvent(GenerateEvent event) override {
    exchange_->record_->OnEvent(prompt_, event);
    // Nothing of a running prefill is shown over HTTP; the heartbeat keeps the stream alive.
    if (event.kind == GenerateEvent::Kind::kProgress) return;
    exchange_->responder_->Post([exchange = exchange_, prompt = prompt_, event = std::move(event)] {
      exchange->OnEvent(prompt, event);
    });
  }

 private:
  const std::shared_ptr<GenerationExchange> exchange_;
  const size_t prompt_;
};

GenerationExchange::GenerationExchange(bool stream, std::unique_ptr<ResponseShape> shape,
                                       Client client)
    : stream_(stream),
      shape_(std::move(shape)),
      responder_(std::move(client.responder)),
      record_(std::move(client.record)),
      share_(client.whole_answers == nullptr
                 ? nullptr
                 : std::make_shared<ByteShare>(std::move(client.whole_answers))) {}

void GenerationExchange::Start(GenerationService* service, const GenerationRequest& request,
                               std::unique_ptr<ResponseShape> shape, Client client) {
  const std::shared_ptr<GenerationExchange> exchange(
      new GenerationExchange(request.stream, std::move(shape), std::move(client)));
  exchange->responder_->OnDisconnect([exchange, service] { exchange->Leave(service); });
  exchange->Begin(service, request.calls);
}

void GenerationExchange::Begin(GenerationService* service, const std::vector<GenerateCall>& calls) {
  record_->SetCalls(calls);
  absl::StatusOr<std::vector<PreparedCall>> prepared = service->Prepare(calls, record_->begun());
  if (!prepared.ok() || prepared->front().constraint == nullptr) {
    return Run(service, std::move(prepared));
  }
  ticket_ = service->Complete(
      *std::move(prepared), [exchange = shared_from_this(), service](auto completed) {
        exchange->responder_->Post([exchange, service, completed = std::move(completed)]() mutable {
          exchange->Run(service, std::move(completed));
        });
      });
}

void GenerationExchange::Run(GenerationService* service,
                             absl::StatusOr<std::vector<PreparedCall>> completed) {
  if (ended_) return;
  ticket_ = ConstraintQueue::kNoTicket;
  const absl::Status status =
      completed.ok() ? Submit(service, *std::move(completed)) : completed.status();
  if (!status.ok()) {
    ended_ = true;
    CancelAll();
    return responder_->Send(ErrorResponse(ErrorFromStatus(status)));
  }
  if (stream_) responder_->StartStream(SseHead(), std::string(kSsePing));
}

absl::Status GenerationExchange::Submit(GenerationService* service,
                                        std::vector<PreparedCall> calls) {
  choices_per_prompt_ = calls.front().num_choices;
  for (size_t i = 0; i < calls.size(); ++i) {
    auto observer = std::make_shared<Observer>(shared_from_this(), i);
    NSA_ASSIGN_OR_RETURN(std::unique_ptr<GenerateHandle> handle,
                         service->Start(std::move(calls[i]), std::move(observer)));
    handles_.push_back(std::move(handle));
    record_->AddChoices(choices_per_prompt_);
  }
  num_running_ = calls.size();
  if (!stream_) choices_.resize(calls.size() * static_cast<size_t>(choices_per_prompt_));
  return absl::OkStatus();
}

// The client is gone.
void GenerationExchange::Leave(GenerationService* service) {
  ended_ = true;
  service->CancelCompletion(std::exchange(ticket_, ConstraintQueue::kNoTicket));
  CancelAll();
}

void GenerationExchange::OnEvent(size_t prompt, const GenerateEvent& event) {
  if (ended_) return;
  switch (event.kind) {
    case GenerateEvent::Kind::kDelta:
      return OnDelta(static_cast<int64_t>(prompt) * choices_per_prompt_ + event.choice, event);
    case GenerateEvent::Kind::kProgress:
      return;
    case GenerateEvent::Kind::kDone:
      return OnDone(event.usage);
    case GenerateEvent::Kind::kError:
      return Fail(event.error);
  }
}

void GenerationExchange::OnDelta(int64_t choice, const GenerateEvent& event) {
  if (stream_) {
    std::string events;
    for (const std::string& chunk : shape_->Chunks(choice, event)) events += SseEvent(chunk);
    if (!events.empty()) responder_->Write(std::move(events));
    return;
  }
  shape_->Collect(event, &choices_[static_cast<size_t>(choice)], &num_collected_bytes_);
  if (share_ == nullptr || share_->GrowTo(num_collected_bytes_)) return;
  Fail(WithDetail(
      absl::UnavailableError("answers that are not streamed have reached their limit of memory"),
      {.code = "unavailable"}));
}

void GenerationExchange::OnDone(const Usage& usage) {
  usage_.prompt_tokens += usage.prompt_tokens;
  usage_.cached_prompt_tokens += usage.cached_prompt_tokens;
  usage_.completion_tokens += usage.completion_tokens;
  if (--num_running_ > 0) return;
  ended_ = true;
  handles_.clear();
  if (!stream_) {
    return responder_->Send(
        {.body = shape_->Body(std::exchange(choices_, {}), usage_), .kept = share_});
  }
  std::string end;
  if (shape_->meta().include_usage) end = SseEvent(shape_->UsageChunk(usage_));
  end += kSseDone;
  responder_->Write(std::move(end));
  responder_->Close();
}

void GenerationExchange::Fail(const absl::Status& status) {
  ended_ = true;
  CancelAll();
  choices_.clear();
  if (share_ != nullptr) share_->Release();
  const HttpError error = ErrorFromStatus(status);
  if (error.status == 500) {
    WriteLog(LogLevel::kError, "a generation failed",
             LogFields()
                 .Text("request_id", record_->request_id())
                 .Text("reason", {status.message().data(), status.message().size()}));
  }
  if (!stream_) return responder_->Send(ErrorResponse(error));
  record_->SetError(error.code);
  responder_->Write(SseEvent(ErrorBody(error)));
  responder_->Close();
}

void GenerationExchange::CancelAll() {
  for (const auto& handle : handles_) handle->Cancel();
  handles_.clear();
}

}  // namespace nsa
