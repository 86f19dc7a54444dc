#include "server/grpc/generation_rpc.h"

#include <iterator>
#include <utility>
#include <vector>

#include "base/status.h"
#include "server/error_detail.h"
#include "server/grpc/generate_reactor.h"
#include "server/grpc/messages.h"
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

absl::StatusOr<std::string> GenerationRpc::CheckKey(
    const grpc::CallbackServerContext& context) const {
  if (options_.keys == nullptr) return "";
  const auto header = context.client_metadata().find("authorization");
  const ApiKeys& keys = *options_.keys;
  if (header == context.client_metadata().end()) return keys.CheckAuthorization(std::nullopt);
  return keys.CheckAuthorization(absl::string_view(header->second.data(), header->second.size()));
}

absl::Status GenerationRpc::CheckServing() const {
  return service_.load() == nullptr ? LoadingError() : absl::OkStatus();
}

absl::StatusOr<GenerateCall> GenerationRpc::CallOf(const grpc::CallbackServerContext& context,
                                                   const grpc::ByteBuffer& request) const {
  NSA_ASSIGN_OR_RETURN(std::string caller, CheckKey(context));
  NSA_RETURN_IF_ERROR(CheckServing());
  NSA_ASSIGN_OR_RETURN(const v1::GenerateRequest message, FromWire<v1::GenerateRequest>(request));
  GenerateCall call = ToGenerateCall(message);
  call.caller = std::move(caller);
  return call;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerationRpc::Generate(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return GenerateReactor::Start(
      service_, CallOf(*context, *request),
      {.max_queued_bytes = options_.max_queued_bytes,
       .on_end = [this](const grpc::Status& status) { CountEnd(kGenerate, status); },
       .record = BeginRecord(kGenerate, context)});
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
absl::Status GenerationRpc::Answer(const UnaryCall& call,
                                   absl::StatusOr<Response> (GenerationRpc::*answer)(const Request&)
                                       const) const {
  NSA_RETURN_IF_ERROR(CheckKey(*call.context).status());
  NSA_RETURN_IF_ERROR(CheckServing());
  NSA_ASSIGN_OR_RETURN(const Request request, FromWire<Request>(*call.request));
  NSA_ASSIGN_OR_RETURN(const Response response, (this->*answer)(request));
  *call.response = ToWire(response);
  return absl::OkStatus();
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
    absl::StatusOr<Response> (GenerationRpc::*answer)(const Request&) const) const {
  const auto record = BeginRecord(call.method, call.context);
  const absl::Status status = Answer(call, answer);
  record->SetGrpcStatus(status.code());
  record->SetError(GetDetail(status).code);
  const grpc::Status grpc_status = ToGrpcStatus(status);
  CountEnd(call.method, grpc_status);
  grpc::ServerUnaryReactor* reactor = call.context->DefaultReactor();
  reactor->Finish(grpc_status);
  return reactor;
}

grpc::ServerUnaryReactor* GenerationRpc::Tokenize(grpc::CallbackServerContext* context,
                                                  const grpc::ByteBuffer* request,
                                                  grpc::ByteBuffer* response) {
  return Finish({kTokenize, context, request, response}, &GenerationRpc::AnswerTokenize);
}

grpc::ServerUnaryReactor* GenerationRpc::Detokenize(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request,
                                                    grpc::ByteBuffer* response) {
  return Finish({kDetokenize, context, request, response}, &GenerationRpc::AnswerDetokenize);
}

grpc::ServerUnaryReactor* GenerationRpc::GetModelInfo(grpc::CallbackServerContext* context,
                                                      const grpc::ByteBuffer* request,
                                                      grpc::ByteBuffer* response) {
  return Finish({kGetModelInfo, context, request, response}, &GenerationRpc::AnswerModelInfo);
}

}  // namespace nsa
