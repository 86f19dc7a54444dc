#pragma once
// The protocol's messages to and from the service's structs; nothing is judged here.

#include <grpcpp/support/status.h>

#include <vector>

#include "absl/status/status.h"
#include "nsa/v1/generation.pb.h"
#include "server/generation_service.h"

namespace nsa {

std::vector<ChatMessage> ToMessages(const v1::ChatMessages& chat);

GenerateCall ToGenerateCall(const v1::GenerateRequest& request);

// A delta, progress or done event; errors are statuses (ToGrpcStatus).
v1::GenerateResponse ToGenerateResponse(GenerateEvent event);

v1::GetModelInfoResponse ToModelInfoResponse(const ModelInfo& model);

grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace nsa
