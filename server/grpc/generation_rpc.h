#pragma once
// GenerationRpc: nsa.v1.GenerationService on gRPC's callback API. Translates; the work is
// GenerationService's.

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "nsa/v1/generation.grpc.pb.h"
#include "server/api_keys.h"
#include "server/generation_service.h"
#include "server/request_log.h"

namespace nsa {

using CallEnded = std::function<void(std::string_view method, int code)>;

class GenerationRpc : public v1::GenerationService::CallbackService {
 public:
  // See GrpcOptions; max_queued_bytes: GenerateReactor::Start.
  struct Options {
    const ApiKeys* keys = nullptr;
    int64_t max_queued_bytes = 0;
    CallEnded on_end;
    std::shared_ptr<const RequestLogOptions> log;
  };
  // The service and the keys must outlive this.
  GenerationRpc(GenerationService* service, Options options)
      : service_(service), options_(std::move(options)) {}

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
    if (options_.on_end) options_.on_end(method, status.error_code());
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
  grpc::ServerUnaryReactor* Finish(RequestRecord& record, std::string_view method,
                                   const absl::Status& status,
                                   grpc::CallbackServerContext* context) const;
  // The call's line in the log; its request id goes into the answer's metadata.
  std::shared_ptr<RequestRecord> BeginRecord(std::string_view method,
                                             grpc::CallbackServerContext* context) const;
  // The caller's name, as ApiKeys::CheckAuthorization; empty where keys are not asked for.
  absl::StatusOr<std::string> CheckKey(const grpc::CallbackServerContext& context) const;

  GenerationService* const service_;
  const Options options_;
};

}  // namespace nsa
