// GET /health: 200 unless the engine hangs, for whoever restarts the process; also while the model
// is loaded. GET /health/ready: 200 while new work is accepted, for whoever routes to it.

#include "server/http/endpoints.h"
#include "server/http/errors.h"

namespace nsa {
namespace {

void Answer(const absl::Status& status, HttpResponder* responder) {
  if (!status.ok()) return responder->Send(ErrorResponse(ErrorFromStatus(status)));
  responder->Send({.body = R"({"status":"ok"})"});
}

}  // namespace

void HandleHealth(const ApiContext& api, const HttpRequest&,
                  std::shared_ptr<HttpResponder> responder) {
  const bool is_loading = api.service == nullptr;
  Answer(is_loading ? absl::OkStatus() : api.service->CheckLive(), responder.get());
}

void HandleReady(const ApiContext& api, const HttpRequest&,
                 std::shared_ptr<HttpResponder> responder) {
  Answer(api.service->CheckReady(), responder.get());
}

}  // namespace nsa
