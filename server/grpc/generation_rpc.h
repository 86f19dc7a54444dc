#pragma once
// GenerationRpc: nsa.v1.GenerationService on gRPC's callback API. Translates; the work is
// GenerationService's.

#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "nsa/v1/generation.grpc.pb.h"
#include "server/api_keys.h"
#include "server/generation_service.h"

namespace nsa {

using CallEnded = std::function<void(std::string_view method, int code)>;

class GenerationRpc : public v1::GenerationService::CallbackService {
 public:
  // The service and the keys must outlive this; null: everybody may call. max_queued_bytes: see
  // GenerateReactor::Start. on_end: see GrpcOptions; may be empty.
  GenerationRpc(GenerationService* service, const ApiKeys* keys, int64_t max_queued_bytes,
                CallEnded on_end)
      : service_(service),
        keys_(keys),
        max_queued_bytes_(max_queued_bytes),
        on_end_(std::move(on_end)) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const v1::GetModelInfoRequest* request,
                                         v1::GetModelInfoResponse* response) override;

 private:
  void CountEnd(std::string_view method, const grpc::Status& status) const {
    if (on_end_) on_end_(method, status.error_code());
  }

  // The call with its caller; nothing of the request is looked at without a key.
  absl::StatusOr<GenerateCall> CallOf(const grpc::CallbackServerContext& context,
                                      const v1::GenerateRequest& request) const;
  absl::Status AnswerTokenize(const grpc::CallbackServerContext& context,
                              const v1::TokenizeRequest& request,
                              v1::TokenizeResponse* response) const;
  absl::Status AnswerDetokenize(const grpc::CallbackServerContext& context,
                                const v1::DetokenizeRequest& request,
                                v1::DetokenizeResponse* response) const;
  grpc::ServerUnaryReactor* Finish(std::string_view method, const absl::Status& status,
                                   grpc::CallbackServerContext* context) const;
  // The caller's name, as ApiKeys::CheckAuthorization; empty where keys are not asked for.
  absl::StatusOr<std::string> CheckKey(const grpc::CallbackServerContext& context) const;

  GenerationService* const service_;
  const ApiKeys* const keys_;
  const int64_t max_queued_bytes_;
  const CallEnded on_end_;
};

}  // namespace nsa
