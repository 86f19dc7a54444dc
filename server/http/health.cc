// GET /health: the process serves.

#include "server/http/endpoints.h"

namespace nsa {

void HandleHealth(const ApiContext&, const HttpRequest&, std::shared_ptr<HttpResponder> responder) {
  responder->Send({.body = R"({"status":"ok"})"});
}

}  // namespace nsa
