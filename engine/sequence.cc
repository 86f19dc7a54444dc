#include "engine/sequence.h"

#include <algorithm>
#include <utility>

namespace nsa {

Sequence::Sequence(Request new_request, std::shared_ptr<TokenSink> new_sink, absl::Time arrived)
    : request(std::move(new_request)),
      sink(std::move(new_sink)),
      num_prompt_tokens(static_cast<int64_t>(request.prompt.size())),
      tokens(std::exchange(request.prompt, {})) {
  times.arrived = arrived;
  if (!request.rules.IsEmpty()) {
    logit_editor.emplace(request.rules, request.stop_token_ids, tokens);
  }
}

FinishReason Sequence::Append(int32_t token) {
  tokens.push_back(token);
  if (logit_editor.has_value()) logit_editor->Append(token);
  const std::vector<int32_t>& stops = request.stop_token_ids;
  if (std::find(stops.begin(), stops.end(), token) != stops.end()) return FinishReason::kStop;
  if (num_generated_tokens() >= request.max_tokens) return FinishReason::kLength;
  return FinishReason::kNone;
}

}  // namespace nsa
