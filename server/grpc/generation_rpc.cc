#include "server/grpc/generation_rpc.h"

#include "server/grpc/generate_reactor.h"
#include "server/grpc/messages.h"

namespace nsa {

grpc::ServerWriteReactor<v1::GenerateResponse>* GenerationRpc::Generate(
    grpc::CallbackServerContext* /*context*/, const v1::GenerateRequest* request) {
  return GenerateReactor::Start(
      service_, ToGenerateCall(*request), max_queued_bytes_,
      [this](const grpc::Status& status) { CountEnd("Generate", status); });
}

grpc::ServerUnaryReactor* GenerationRpc::Tokenize(grpc::CallbackServerContext* context,
                                                  const v1::TokenizeRequest* request,
                                                  v1::TokenizeResponse* response) {
  const bool add_special_tokens =
      !request->has_add_special_tokens() || request->add_special_tokens();
  const auto tokens = service_->Tokenize(request->model(), request->text(), add_special_tokens);
  if (tokens.ok()) {
    response->mutable_token_ids()->Add(tokens->begin(), tokens->end());
    response->set_max_model_tokens(service_->model().max_request_tokens);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const grpc::Status status = ToGrpcStatus(tokens.status());
  CountEnd("Tokenize", status);
  reactor->Finish(status);
  return reactor;
}

grpc::ServerUnaryReactor* GenerationRpc::GetModelInfo(grpc::CallbackServerContext* context,
                                                      const v1::GetModelInfoRequest* /*request*/,
                                                      v1::GetModelInfoResponse* response) {
  *response = ToModelInfoResponse(service_->model());
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  CountEnd("GetModelInfo", grpc::Status::OK);
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace nsa
