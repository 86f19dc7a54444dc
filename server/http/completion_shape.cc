#include "server/http/completion_shape.h"

#include <utility>

#include "server/http/trace_json.h"

namespace nsa {
namespace {

using Json = nlohmann::ordered_json;

Json Choice(int64_t index, const std::string& text, Json logprobs, FinishReason finish) {
  return {{"index", index},
          {"text", text},
          {"logprobs", std::move(logprobs)},
          {"finish_reason", FinishReasonJson(finish)}};
}

}  // namespace

std::vector<std::string> CompletionShape::Chunks(int64_t choice, const GenerateEvent& delta) {
  if (delta.text.empty() && delta.logprobs.empty() && delta.traces.empty() &&
      delta.finish == FinishReason::kNone) {
    return {};
  }
  Json logprobs = nullptr;
  if (meta().with_logprobs) positions_[choice].AddText(delta.text);
  if (!delta.logprobs.empty()) {
    logprobs = CompletionLogprobs(delta.logprobs, &positions_[choice]);
  }
  Json chunk = Choice(choice, delta.text, std::move(logprobs), delta.finish);
  if (!delta.traces.empty()) chunk["nsa_trace"] = TraceJson(delta);
  return {Chunk(chunk)};
}

Json CompletionShape::ChoiceOf(int64_t index, const CollectedChoice& choice) const {
  return Choice(index, choice.text, nullptr, choice.finish);
}

Json CompletionShape::LogprobsOf(std::span<const TokenLogprob> logprobs,
                                 TextPosition* position) const {
  return CompletionLogprobs(logprobs, position);
}

}  // namespace nsa
