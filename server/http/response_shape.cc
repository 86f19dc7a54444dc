#include "server/http/response_shape.h"

#include <utility>

namespace nsa {
namespace {

nlohmann::ordered_json UsageJson(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_prompt_tokens}}}};
}

}  // namespace

ResponseShape::Json ResponseShape::Envelope(const char* object) const {
  return {{"id", meta_.id},
          {"object", object},
          {"created", meta_.created},
          {"model", meta_.model},
          {"system_fingerprint", meta_.fingerprint},
          {"choices", Json::array()}};
}

std::string ResponseShape::Chunk(Json choice) const {
  Json chunk = Envelope(ChunkObject());
  chunk["choices"].push_back(std::move(choice));
  if (meta_.include_usage) chunk["usage"] = nullptr;
  return DumpJson(chunk);
}

std::string ResponseShape::UsageChunk(const Usage& usage) const {
  Json chunk = Envelope(ChunkObject());
  chunk["usage"] = UsageJson(usage);
  return DumpJson(chunk);
}

std::string ResponseShape::Body(const std::vector<FinishedChoice>& choices,
                                const Usage& usage) const {
  Json body = Envelope(BodyObject());
  for (size_t i = 0; i < choices.size(); ++i) {
    body["choices"].push_back(ChoiceOf(static_cast<int64_t>(i), choices[i]));
  }
  body["usage"] = UsageJson(usage);
  return DumpJson(body);
}

nlohmann::ordered_json FinishReasonJson(FinishReason finish) {
  switch (finish) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    default:
      return nullptr;
  }
}

std::string DumpJson(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace nsa
