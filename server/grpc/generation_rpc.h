#pragma once
// GenerationRpc: nsa.v1.GenerationService on gRPC's callback API. Translates; the work is
// GenerationService's.

#include "nsa/v1/generation.grpc.pb.h"
#include "server/generation_service.h"

namespace nsa {

class GenerationRpc : public v1::GenerationService::CallbackService {
 public:
  // The service must outlive this. max_queued_bytes: see GenerateReactor::Start.
  GenerationRpc(GenerationService* service, int64_t max_queued_bytes)
      : service_(service), max_queued_bytes_(max_queued_bytes) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const v1::GetModelInfoRequest* request,
                                         v1::GetModelInfoResponse* response) override;

 private:
  GenerationService* const service_;
  const int64_t max_queued_bytes_;
};

}  // namespace nsa
