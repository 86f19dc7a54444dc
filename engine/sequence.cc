#include "engine/sequence.h"

#include <algorithm>
#include <utility>

namespace nsa {

Sequence::Sequence(Request new_request, std::shared_ptr<TokenSink> new_sink, absl::Time queued)
    : request(std::move(new_request)),
      sink(std::move(new_sink)),
      num_prompt_tokens(static_cast<int64_t>(request.prompt.size())),
      tokens(std::exchange(request.prompt, {})) {
  times.arrived = std::min(request.arrived, queued);
  times.queued = queued;
  LogitRules rules = request.rules;
  if (request.constraint != nullptr) {
    // It knows where stop tokens cannot be held back.
    constrained_output = std::make_shared<ConstrainedOutput>(
        request.constraint, request.stop_token_ids, std::exchange(rules.min_tokens, 0));
  }
  if (!rules.IsEmpty()) logit_editor.emplace(rules, request.stop_token_ids, tokens);
}

FinishReason Sequence::Append(int32_t token) {
  tokens.push_back(token);
  if (logit_editor.has_value()) logit_editor->Append(token);
  if (constrained_output != nullptr) {
    const ConstrainedOutput::Progress progress = constrained_output->Advance(token);
    if (progress == ConstrainedOutput::Progress::kNotAllowed) return FinishReason::kError;
    if (progress == ConstrainedOutput::Progress::kComplete) return FinishReason::kStop;
  }
  if (is_stop_token(token)) return FinishReason::kStop;
  if (num_generated_tokens() >= request.max_tokens) return FinishReason::kLength;
  return FinishReason::kNone;
}

bool Sequence::is_stop_token(int32_t token) const {
  if (constrained_output != nullptr && constrained_output->is_end(token)) return true;
  const std::vector<int32_t>& stops = request.stop_token_ids;
  return std::find(stops.begin(), stops.end(), token) != stops.end();
}

}  // namespace nsa
