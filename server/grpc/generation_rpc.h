#pragma once
// GenerationRpc: nsa.v1.GenerationService on gRPC's callback API. Translates; the work is
// GenerationService's.

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/task_lane.h"
#include "nsa/v1/generation.grpc.pb.h"
#include "server/api_keys.h"
#include "server/generation_service.h"
#include "server/lanes.h"
#include "server/request_log.h"

namespace nsa {

using CallEnded = std::function<void(std::string_view method, int code)>;

// The service's methods with their messages as bytes.
using RawGenerationService = v1::GenerationService::WithRawCallbackMethod_Generate<
    v1::GenerationService::WithRawCallbackMethod_Tokenize<
        v1::GenerationService::WithRawCallbackMethod_Detokenize<
            v1::GenerationService::WithRawCallbackMethod_GetModelInfo<
                v1::GenerationService::Service>>>>;

class GenerationRpc : public RawGenerationService {
 public:
  // See GrpcOptions; max_queued_bytes: GenerateReactor::Options.
  struct Options {
    const ApiKeys* keys = nullptr;
    int64_t max_queued_bytes = 0;
    CallEnded on_end;
    std::shared_ptr<const RequestLogOptions> log;
  };
  // The keys must outlive this.
  explicit GenerationRpc(Options options);

  // Until then calls are UNAVAILABLE. The service must outlive this.
  void Serve(GenerationService* service) { service_ = service; }

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* response) override;

 private:
  void CountEnd(std::string_view method, const grpc::Status& status) const {
    if (options_.on_end) options_.on_end(method, status.error_code());
  }

  TaskLane& LaneOf(Lane lane) { return *lanes_[static_cast<size_t>(lane)]; }
  static absl::StatusOr<GenerateCall> CallOf(const grpc::ByteBuffer& request,
                                             const std::string& caller);
  absl::StatusOr<v1::TokenizeResponse> AnswerTokenize(const v1::TokenizeRequest& request) const;
  absl::StatusOr<v1::DetokenizeResponse> AnswerDetokenize(
      const v1::DetokenizeRequest& request) const;
  absl::StatusOr<v1::GetModelInfoResponse> AnswerModelInfo(
      const v1::GetModelInfoRequest& request) const;

  // A call with one message each way.
  struct UnaryCall {
    std::string_view method;
    Lane lane = Lane::kSmall;
    grpc::CallbackServerContext* context = nullptr;
    const grpc::ByteBuffer* request = nullptr;
    grpc::ByteBuffer* response = nullptr;
  };
  template <typename Request, typename Response>
  grpc::ServerUnaryReactor* Finish(const UnaryCall& call,
                                   absl::StatusOr<Response> (GenerationRpc::*answer)(const Request&)
                                       const);
  template <typename Request, typename Response>
  absl::StatusOr<grpc::ByteBuffer> Answer(
      const grpc::ByteBuffer& bytes,
      absl::StatusOr<Response> (GenerationRpc::*answer)(const Request&) const) const;
  // The call's line in the log; its request id goes into the answer's metadata.
  std::shared_ptr<RequestRecord> BeginRecord(std::string_view method,
                                             grpc::CallbackServerContext* context) const;
  // The caller's name, as ApiKeys::CheckAuthorization; empty where keys are not asked for.
  // UNAVAILABLE before Serve. Nothing of a request is looked at without.
  absl::StatusOr<std::string> Admit(const grpc::CallbackServerContext& context) const;

  std::atomic<GenerationService*> service_{nullptr};
  const Options options_;
  // gRPC's own threads parse and tokenize nothing: they are few, and probes need them.
  std::vector<std::unique_ptr<TaskLane>> lanes_;  // last: they use everything above
};

}  // namespace nsa
