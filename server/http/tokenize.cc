// POST /tokenize, POST /detokenize

#include <utility>

#include "base/status.h"
#include "server/http/endpoints.h"
#include "server/http/errors.h"
#include "server/http/openai_types.h"
#include "server/http/response_shape.h"

namespace nsa {
namespace {

absl::StatusOr<std::string> TokenizeBody(const ApiContext& api, const std::string& body) {
  const GenerationService& service = *api.service;
  NSA_ASSIGN_OR_RETURN(const TokenizeCall call, ParseTokenizeRequest(body, api.unknown_fields));
  NSA_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens,
                       call.prompt.has_value()
                           ? service.Tokenize(call.model, *call.prompt, call.add_special_tokens)
                           : service.TokenizeChat(call.model, call.messages));
  return DumpJson({{"tokens", tokens},
                   {"count", tokens.size()},
                   {"max_model_len", service.model().max_request_tokens}});
}

absl::StatusOr<std::string> DetokenizeBody(const ApiContext& api, const std::string& body) {
  NSA_ASSIGN_OR_RETURN(const DetokenizeCall call, ParseDetokenizeRequest(body, api.unknown_fields));
  NSA_ASSIGN_OR_RETURN(const std::string prompt, api.service->Detokenize(call.model, call.tokens));
  nlohmann::ordered_json answer;
  answer["prompt"] = prompt;
  return DumpJson(answer);
}

void SendBody(absl::StatusOr<std::string> body, HttpResponder* responder) {
  if (!body.ok()) return responder->Send(ErrorResponse(ErrorFromStatus(body.status())));
  responder->Send({.body = *std::move(body)});
}

}  // namespace

void HandleTokenize(const ApiContext& api, const HttpRequest& request,
                    std::shared_ptr<HttpResponder> responder) {
  SendBody(TokenizeBody(api, request.body), responder.get());
}

void HandleDetokenize(const ApiContext& api, const HttpRequest& request,
                      std::shared_ptr<HttpResponder> responder) {
  SendBody(DetokenizeBody(api, request.body), responder.get());
}

}  // namespace nsa
