#include "bench/serving/grpc_caller.h"

#include <grpcpp/grpcpp.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace nsa::bench {
namespace {

Outcome OutcomeOf(grpc::StatusCode code, bool cancelled) {
  switch (code) {
    case grpc::StatusCode::OK:
      return Outcome::kOk;
    case grpc::StatusCode::CANCELLED:
      return cancelled ? Outcome::kCancelled : Outcome::kServerError;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
    case grpc::StatusCode::UNAVAILABLE:
      return Outcome::kRefused;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return Outcome::kTimeout;
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNKNOWN:
      return Outcome::kServerError;
    default:
      return Outcome::kClientError;
  }
}

}  // namespace

// Deletes itself once the call is over. gRPC runs the reactions one after another.
class GrpcCaller::Call : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Call(GrpcCaller* caller, const PlannedCall& planned, Clock::time_point arrival, Done done)
      : loop_(caller->loop_),
        work_(caller->loop_->get_executor()),
        planned_(planned),
        done_(std::move(done)) {
    record_.arrival = arrival;
    record_.sent = Clock::now();
    record_.prompt_tokens = planned.prompt_tokens;
    Fill(caller->options_);
    caller->stub_->async()->Generate(&context_, &request_, this);
    cancelled_ = planned_.cancel_after == 0;
    StartRead(&response_);
    AddHold();  // or the call might be over, and this gone, before we leave it
    StartCall();
    if (planned_.cancel_after == 0) context_.TryCancel();
    RemoveHold();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (response_.token_ids_size() > 0) record_.TakeToken(Clock::now());
    record_.num_tokens += response_.token_ids_size();
    if (record_.num_events > 0 && record_.num_events == planned_.cancel_after) {
      cancelled_ = true;
      context_.TryCancel();
    }
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    record_.end = Clock::now();
    // An answer that was complete before we could leave is cancelled all the same.
    record_.outcome = cancelled_ && status.ok() ? Outcome::kCancelled
                                                : OutcomeOf(status.error_code(), cancelled_);
    record_.status = absl::StrCat("grpc ", status.error_code());
    boost::asio::post(*loop_, [done = std::move(done_), record = std::move(record_)]() mutable {
      done(std::move(record));
    });
    delete this;
  }

 private:
  void Fill(const BenchOptions& options) {
    request_.set_model(options.model);
    request_.set_max_tokens(planned_.output_tokens);
    request_.set_temperature(0);
    request_.set_ignore_eos(options.ignore_eos);
    if (options.words) {
      request_.set_text(PromptWords(planned_));
    } else {
      for (const int32_t id : PromptIds(planned_)) request_.mutable_token_ids()->add_ids(id);
    }
    context_.set_deadline(std::chrono::system_clock::now() +
                          absl::ToChronoNanoseconds(options.timeout));
    if (!options.api_key.empty()) {
      context_.AddMetadata("authorization", absl::StrCat("Bearer ", options.api_key));
    }
  }

  boost::asio::io_context* const loop_;
  const boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  const PlannedCall planned_;
  Done done_;
  CallRecord record_;
  grpc::ClientContext context_;
  v1::GenerateRequest request_;
  v1::GenerateResponse response_;
  bool cancelled_ = false;
};

GrpcCaller::GrpcCaller(const BenchOptions& options, boost::asio::io_context* loop)
    : options_(options),
      loop_(loop),
      stub_(v1::GenerationService::NewStub(grpc::CreateChannel(
          absl::StrCat(options.host, ":", options.port), grpc::InsecureChannelCredentials()))) {}

void GrpcCaller::Start(const PlannedCall& call, Clock::time_point arrival, Done done) {
  new Call(this, call, arrival, std::move(done));
}

}  // namespace nsa::bench
