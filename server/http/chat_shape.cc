#include "server/http/chat_shape.h"

#include <utility>

#include "server/http/logprobs_json.h"
#include "server/http/trace_json.h"

namespace nsa {

namespace {

using Json = nlohmann::ordered_json;

Json Choice(int64_t index, Json delta, Json logprobs, FinishReason finish) {
  return {{"index", index},
          {"delta", std::move(delta)},
          {"logprobs", std::move(logprobs)},
          {"finish_reason", FinishReasonJson(finish)}};
}

}  // namespace

std::vector<std::string> ChatShape::Chunks(int64_t choice, const GenerateEvent& delta) {
  std::vector<std::string> chunks;
  if (started_.insert(choice).second) {
    chunks.push_back(Chunk(
        Choice(choice, {{"role", "assistant"}, {"content", ""}}, nullptr, FinishReason::kNone)));
  }
  if (!delta.text.empty() || !delta.logprobs.empty() || !delta.traces.empty()) {
    Json logprobs = delta.logprobs.empty() ? Json() : ChatLogprobs(delta.logprobs);
    Json chunk =
        Choice(choice, {{"content", delta.text}}, std::move(logprobs), FinishReason::kNone);
    if (!delta.traces.empty()) chunk["nsa_trace"] = TraceJson(delta);
    chunks.push_back(Chunk(chunk));
  }
  if (delta.finish != FinishReason::kNone) {
    chunks.push_back(Chunk(Choice(choice, Json::object(), nullptr, delta.finish)));
  }
  return chunks;
}

ResponseShape::Json ChatShape::ChoiceOf(int64_t index, const CollectedChoice& choice) const {
  Json message = {{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
  return {{"index", index},
          {"message", std::move(message)},
          {"logprobs", nullptr},
          {"finish_reason", FinishReasonJson(choice.finish)}};
}

ResponseShape::Json ChatShape::LogprobsOf(std::span<const TokenLogprob> logprobs,
                                          TextPosition* /*position*/) const {
  return ChatLogprobs(logprobs);
}

}  // namespace nsa
