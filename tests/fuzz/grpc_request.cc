#include "server/grpc/messages.h"

#include <google/protobuf/stubs/logging.h>

#include "tests/fuzz/requests.h"
#include "tests/fuzz/targets.h"

namespace nsa::fuzz {

void GrpcRequest(std::string_view input) {
  const google::protobuf::LogSilencer silencer;  // it has a line for each text that is not UTF-8
  v1::GenerateRequest request;
  if (!request.ParseFromArray(input.data(), static_cast<int>(input.size()))) return;
  const GenerateCall call = ToGenerateCall(request);
  PrepareCalls({&call, 1});
}

}  // namespace nsa::fuzz
