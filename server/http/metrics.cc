// GET /metrics

#include "server/http/endpoints.h"

namespace nsa {

void HandleMetrics(const ApiContext& api, const HttpRequest&,
                   std::shared_ptr<HttpResponder> responder) {
  responder->Send(
      {.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = api.metrics->Text()});
}

}  // namespace nsa
