#include "server/grpc/generation_rpc.h"

#include <utility>
#include <vector>

#include "base/status.h"
#include "server/grpc/generate_reactor.h"
#include "server/grpc/messages.h"

namespace nsa {

absl::StatusOr<std::string> GenerationRpc::CheckKey(
    const grpc::CallbackServerContext& context) const {
  if (keys_ == nullptr) return "";
  const auto header = context.client_metadata().find("authorization");
  if (header == context.client_metadata().end()) return keys_->CheckAuthorization(std::nullopt);
  return keys_->CheckAuthorization(absl::string_view(header->second.data(), header->second.size()));
}

absl::StatusOr<GenerateCall> GenerationRpc::CallOf(const grpc::CallbackServerContext& context,
                                                   const v1::GenerateRequest& request) const {
  NSA_ASSIGN_OR_RETURN(std::string caller, CheckKey(context));
  GenerateCall call = ToGenerateCall(request);
  call.caller = std::move(caller);
  return call;
}

grpc::ServerWriteReactor<v1::GenerateResponse>* GenerationRpc::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  return GenerateReactor::Start(
      service_, CallOf(*context, *request), max_queued_bytes_,
      [this](const grpc::Status& status) { CountEnd("Generate", status); });
}

absl::Status GenerationRpc::AnswerTokenize(const grpc::CallbackServerContext& context,
                                           const v1::TokenizeRequest& request,
                                           v1::TokenizeResponse* response) const {
  NSA_RETURN_IF_ERROR(CheckKey(context).status());
  const bool add_special_tokens = !request.has_add_special_tokens() || request.add_special_tokens();
  NSA_ASSIGN_OR_RETURN(
      const std::vector<int32_t> tokens,
      request.has_chat() ? service_->TokenizeChat(request.model(), ToMessages(request.chat()))
                         : service_->Tokenize(request.model(), request.text(), add_special_tokens));
  response->mutable_token_ids()->Add(tokens.begin(), tokens.end());
  response->set_max_model_tokens(service_->model().max_request_tokens);
  return absl::OkStatus();
}

absl::Status GenerationRpc::AnswerDetokenize(const grpc::CallbackServerContext& context,
                                             const v1::DetokenizeRequest& request,
                                             v1::DetokenizeResponse* response) const {
  NSA_RETURN_IF_ERROR(CheckKey(context).status());
  const std::vector<int64_t> tokens(request.token_ids().begin(), request.token_ids().end());
  NSA_ASSIGN_OR_RETURN(*response->mutable_text(), service_->Detokenize(request.model(), tokens));
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* GenerationRpc::Finish(std::string_view method, const absl::Status& status,
                                                grpc::CallbackServerContext* context) const {
  const grpc::Status grpc_status = ToGrpcStatus(status);
  CountEnd(method, grpc_status);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc_status);
  return reactor;
}

grpc::ServerUnaryReactor* GenerationRpc::Tokenize(grpc::CallbackServerContext* context,
                                                  const v1::TokenizeRequest* request,
                                                  v1::TokenizeResponse* response) {
  return Finish("Tokenize", AnswerTokenize(*context, *request, response), context);
}

grpc::ServerUnaryReactor* GenerationRpc::Detokenize(grpc::CallbackServerContext* context,
                                                    const v1::DetokenizeRequest* request,
                                                    v1::DetokenizeResponse* response) {
  return Finish("Detokenize", AnswerDetokenize(*context, *request, response), context);
}

grpc::ServerUnaryReactor* GenerationRpc::GetModelInfo(grpc::CallbackServerContext* context,
                                                      const v1::GetModelInfoRequest* /*request*/,
                                                      v1::GetModelInfoResponse* response) {
  const absl::Status status = CheckKey(*context).status();
  if (status.ok()) *response = ToModelInfoResponse(service_->model());
  return Finish("GetModelInfo", status, context);
}

}  // namespace nsa
