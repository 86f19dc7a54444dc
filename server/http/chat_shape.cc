#include "server/http/chat_shape.h"

#include <utility>

#include "server/http/logprobs_json.h"

namespace nsa {

std::string ChatShape::DeltaChunk(int64_t choice, Json delta, Json logprobs, FinishReason finish) {
  return Chunk({{"index", choice},
                {"delta", std::move(delta)},
                {"logprobs", std::move(logprobs)},
                {"finish_reason", FinishReasonJson(finish)}});
}

std::vector<std::string> ChatShape::Chunks(int64_t choice, const GenerateEvent& delta) {
  std::vector<std::string> chunks;
  if (started_.insert(choice).second) {
    chunks.push_back(
        DeltaChunk(choice, {{"role", "assistant"}, {"content", ""}}, nullptr, FinishReason::kNone));
  }
  if (!delta.text.empty() || !delta.logprobs.empty()) {
    Json logprobs = delta.logprobs.empty() ? Json() : ChatLogprobs(delta.logprobs);
    chunks.push_back(
        DeltaChunk(choice, {{"content", delta.text}}, std::move(logprobs), FinishReason::kNone));
  }
  if (delta.finish != FinishReason::kNone) {
    chunks.push_back(DeltaChunk(choice, Json::object(), nullptr, delta.finish));
  }
  return chunks;
}

ResponseShape::Json ChatShape::ChoiceOf(int64_t index, const FinishedChoice& choice) const {
  Json message = {{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
  return {{"index", index},
          {"message", std::move(message)},
          {"logprobs", meta().with_logprobs ? ChatLogprobs(choice.logprobs) : Json()},
          {"finish_reason", FinishReasonJson(choice.finish)}};
}

}  // namespace nsa
