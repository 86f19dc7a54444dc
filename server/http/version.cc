// GET /version

#include "server/http/endpoints.h"
#include "server/http/response_shape.h"

namespace nsa {

void HandleVersion(const ApiContext& api, const HttpRequest&,
                   std::shared_ptr<HttpResponder> responder) {
  nlohmann::ordered_json body;
  body["version"] = api.version;
  responder->Send({.body = DumpJson(body)});
}

}  // namespace nsa
