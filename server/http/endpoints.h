#pragma once
// The endpoints: each in a file of its own, all with the signature that the route table wants.

#include <memory>

#include "server/http/api_context.h"
#include "server/http/http_message.h"

namespace nsa {

using Endpoint = void (*)(const ApiContext& api, const HttpRequest& request,
                          std::shared_ptr<HttpResponder> responder);

void HandleCompletions(const ApiContext& api, const HttpRequest& request,
                       std::shared_ptr<HttpResponder> responder);
void HandleChatCompletions(const ApiContext& api, const HttpRequest& request,
                           std::shared_ptr<HttpResponder> responder);
void HandleListModels(const ApiContext& api, const HttpRequest& request,
                      std::shared_ptr<HttpResponder> responder);
void HandleGetModel(const ApiContext& api, const HttpRequest& request,
                    std::shared_ptr<HttpResponder> responder);
void HandleTokenize(const ApiContext& api, const HttpRequest& request,
                    std::shared_ptr<HttpResponder> responder);
void HandleDetokenize(const ApiContext& api, const HttpRequest& request,
                      std::shared_ptr<HttpResponder> responder);
void HandleTokenizerInfo(const ApiContext& api, const HttpRequest& request,
                         std::shared_ptr<HttpResponder> responder);
void HandleHealth(const ApiContext& api, const HttpRequest& request,
                  std::shared_ptr<HttpResponder> responder);
void HandleReady(const ApiContext& api, const HttpRequest& request,
                 std::shared_ptr<HttpResponder> responder);
void HandleVersion(const ApiContext& api, const HttpRequest& request,
                   std::shared_ptr<HttpResponder> responder);
void HandleOpenapi(const ApiContext& api, const HttpRequest& request,
                   std::shared_ptr<HttpResponder> responder);
void HandleMetrics(const ApiContext& api, const HttpRequest& request,
                   std::shared_ptr<HttpResponder> responder);
void HandleConsole(const ApiContext& api, const HttpRequest& request,
                   std::shared_ptr<HttpResponder> responder);

}  // namespace nsa
