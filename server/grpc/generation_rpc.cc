#include "server/grpc/generation_rpc.h"

#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "base/status.h"
#include "server/error_detail.h"
#include "server/grpc/generate_reactor.h"
#include "server/grpc/messages.h"
#include "server/grpc/unary_reactor.h"
#include "server/grpc/wire.h"
#include "server/request_id.h"

namespace nsa {
namespace {

constexpr char kGenerate[] = "Generate", kTokenize[] = "Tokenize", kDetokenize[] = "Detokenize",
               kGetModelInfo[] = "GetModelInfo";
constexpr char kRequestIdKey[] = "x-request-id";

// The value of a key that the client sent once; else empty.
std::string OnlyValue(const grpc::CallbackServerContext& context, const char* key) {
  const auto [first, last] = context.client_metadata().equal_range(key);
  if (first == last || std::next(first) != last) return "";
  return {first->second.data(), first->second.size()};
}

}  // namespace

GenerationRpc::GenerationRpc(Options options) : options_(std::move(options)) {
  for (const int num_threads : kLaneTurns) {
    lanes_.push_back(std::make_unique<TaskLane>(num_threads, "nsa-grpc"));
  }
}

absl::StatusOr<std::string> GenerationRpc::Admit(const grpc::CallbackServerContext& context) const {
  std::string caller;
  if (options_.keys != nullptr) {
    const auto header = context.client_metadata().find("authorization");
    const bool has_header = header != context.client_metadata().end();
    NSA_ASSIGN_OR_RETURN(caller, options_.keys->CheckAuthorization(
                                     has_header ? std::optional(absl::string_view(
                                                      header->second.data(), header->second.size()))
                                                : std::nullopt));
  }
  if (service_.load() == nullptr) return LoadingError();
  return caller;
}

absl::StatusOr<GenerateCall> GenerationRpc::CallOf(const grpc::ByteBuffer& request,
                                                   const std::string& caller) {
  NSA_ASSIGN_OR_RETURN(const v1::GenerateRequest message, FromWire<v1::GenerateRequest>(request));
  GenerateCall call = ToGenerateCall(message);
  call.caller = caller;
  return call;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerationRpc::Generate(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  absl::StatusOr<std::string> caller = Admit(*context);
  const std::shared_ptr<GenerateReactor> reactor = GenerateReactor::Make(
      service_, {.max_queued_bytes = options_.max_queued_bytes,
                 .on_end = [this](const grpc::Status& status) { CountEnd(kGenerate, status); },
                 .record = BeginRecord(kGenerate, context)});
  if (!caller.ok()) {
    reactor->Begin(caller.status());
    return reactor.get();
  }
  // The call may end before its turn comes: context and request are gone then.
  LaneOf(GenerationLane(request->Length()))
      .Run([reactor, caller = *std::move(caller), bytes = *request] {
        if (!reactor->is_ending()) reactor->Begin(CallOf(bytes, caller));
      });
  return reactor.get();
}

absl::StatusOr<v1::TokenizeResponse> GenerationRpc::AnswerTokenize(
    const v1::TokenizeRequest& request) const {
  const bool add_special_tokens = !request.has_add_special_tokens() || request.add_special_tokens();
  NSA_ASSIGN_OR_RETURN(
      const std::vector<int32_t> tokens,
      request.has_chat()
          ? service_.load()->TokenizeChat(request.model(), ToMessages(request.chat()))
          : service_.load()->Tokenize(request.model(), request.text(), add_special_tokens));
  v1::TokenizeResponse response;
  response.mutable_token_ids()->Add(tokens.begin(), tokens.end());
  response.set_max_model_tokens(service_.load()->model().max_request_tokens);
  return response;
}

absl::StatusOr<v1::DetokenizeResponse> GenerationRpc::AnswerDetokenize(
    const v1::DetokenizeRequest& request) const {
  const std::vector<int64_t> tokens(request.token_ids().begin(), request.token_ids().end());
  v1::DetokenizeResponse response;
  NSA_ASSIGN_OR_RETURN(*response.mutable_text(),
                       service_.load()->Detokenize(request.model(), tokens));
  return response;
}

absl::StatusOr<v1::GetModelInfoResponse> GenerationRpc::AnswerModelInfo(
    const v1::GetModelInfoRequest& /*request*/) const {
  return ToModelInfoResponse(service_.load()->model());
}

template <typename Request, typename Response>
absl::StatusOr<grpc::ByteBuffer> GenerationRpc::Answer(
    const grpc::ByteBuffer& bytes,
    absl::StatusOr<Response> (GenerationRpc::*answer)(const Request&) const) const {
  NSA_ASSIGN_OR_RETURN(const Request request, FromWire<Request>(bytes));
  NSA_ASSIGN_OR_RETURN(const Response response, (this->*answer)(request));
  return ToWire(response);
}

std::shared_ptr<RequestRecord> GenerationRpc::BeginRecord(
    std::string_view method, grpc::CallbackServerContext* context) const {
  const std::string given = OnlyValue(*context, kRequestIdKey);
  auto record = std::make_shared<RequestRecord>(
      options_.log, "grpc", IsAcceptableRequestId(given) ? given : NewId("req-"));
  record->SetTrace(TraceIdOf(OnlyValue(*context, "traceparent")));
  record->SetRoute(method);
  context->AddInitialMetadata(kRequestIdKey, record->request_id());
  return record;
}

template <typename Request, typename Response>
grpc::ServerUnaryReactor* GenerationRpc::Finish(
    const UnaryCall& call,
    absl::StatusOr<Response> (GenerationRpc::*answer)(const Request&) const) {
  const auto on_end = [this, method = call.method, record = BeginRecord(call.method, call.context)](
                          const absl::Status& status) {
    record->SetGrpcStatus(status.code());
    record->SetError(absl::IsCancelled(status) ? "client_left" : GetDetail(status).code);
    CountEnd(method, ToGrpcStatus(status));
  };
  const std::shared_ptr<UnaryReactor> reactor = UnaryReactor::Make(call.response, on_end);
  const absl::Status status = Admit(*call.context).status();
  if (!status.ok()) {
    reactor->End(status);
    return reactor.get();
  }
  // The call may end before its turn comes: its context and messages are gone then.
  LaneOf(call.lane).Run([this, reactor, bytes = *call.request, answer] {
    if (!reactor->is_ended()) reactor->End(Answer(bytes, answer));
  });
  return reactor.get();
}

grpc::ServerUnaryReactor* GenerationRpc::Tokenize(grpc::CallbackServerContext* context,
                                                  const grpc::ByteBuffer* request,
                                                  grpc::ByteBuffer* response) {
  return Finish({kTokenize, Lane::kTokenize, context, request, response},
                &GenerationRpc::AnswerTokenize);
}

grpc::ServerUnaryReactor* GenerationRpc::Detokenize(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request,
                                                    grpc::ByteBuffer* response) {
  return Finish({kDetokenize, Lane::kTokenize, context, request, response},
                &GenerationRpc::AnswerDetokenize);
}

grpc::ServerUnaryReactor* GenerationRpc::GetModelInfo(grpc::CallbackServerContext* context,
                                                      const grpc::ByteBuffer* request,
                                                      grpc::ByteBuffer* response) {
  return Finish({kGetModelInfo, Lane::kSmall, context, request, response},
                &GenerationRpc::AnswerModelInfo);
}

}  // namespace nsa
