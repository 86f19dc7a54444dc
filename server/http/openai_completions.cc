// POST /v1/completions

#include <utility>

#include "absl/time/clock.h"
#include "server/http/completion_shape.h"
#include "server/http/endpoints.h"
#include "server/http/errors.h"
#include "server/http/generation_exchange.h"
#include "server/http/openai_types.h"
#include "server/request_id.h"

namespace nsa {

void HandleCompletions(const ApiContext& api, const HttpRequest& request,
                       std::shared_ptr<HttpResponder> responder) {
  absl::StatusOr<GenerationRequest> parsed =
      ParseCompletionRequest(request.body, api.unknown_fields);
  if (!parsed.ok()) return responder->Send(ErrorResponse(ErrorFromStatus(parsed.status())));
  for (GenerateCall& call : parsed->calls) call.caller = request.caller;
  auto shape = std::make_unique<CompletionShape>(
      ResponseMeta{.id = NewId("cmpl-"),
                   .created = absl::ToUnixSeconds(absl::Now()),
                   .model = api.service->model().name,
                   .fingerprint = api.fingerprint,
                   .with_logprobs = parsed->calls.front().num_logprobs.has_value(),
                   .include_usage = parsed->include_usage});
  GenerationExchange::Start(api.service, *parsed, std::move(shape),
                            {std::move(responder), request.record, api.whole_answers});
}

}  // namespace nsa
