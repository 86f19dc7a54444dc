#include "server/http/openai_types.h"
#include "tests/fuzz/requests.h"
#include "tests/fuzz/targets.h"

namespace nsa::fuzz {

void CompletionRequest(std::string_view input) {
  const auto request = ParseCompletionRequest(input);
  if (request.ok()) PrepareCalls(request->calls);
}

}  // namespace nsa::fuzz
