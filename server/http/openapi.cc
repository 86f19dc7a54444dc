// GET /openapi.json

#include "absl/strings/str_replace.h"
#include "server/http/endpoints.h"
#include "server/http/openapi_text.h"

namespace nsa {

void HandleOpenapi(const ApiContext& api, const HttpRequest&,
                   std::shared_ptr<HttpResponder> responder) {
  responder->Send({.body = absl::StrReplaceAll(kOpenapiText, {{"{VERSION}", api.version}})});
}

}  // namespace nsa
