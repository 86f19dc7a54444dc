#include "server/http/openai_types.h"
#include "tests/fuzz/requests.h"
#include "tests/fuzz/targets.h"

namespace nsa::fuzz {

void ChatRequest(std::string_view input) {
  const auto request = ParseChatRequest(input);
  if (request.ok()) PrepareCalls(request->calls);
}

}  // namespace nsa::fuzz
