#include "server/http/response_shape.h"

#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"

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

std::string ResponseShape::Chunk(const Json& choice) {
  if (chunk_head_.empty()) {
    // The choices stand last but for the usage: the head ends where their list begins.
    chunk_head_ = DumpJson(Envelope(ChunkObject()));
    chunk_head_.resize(chunk_head_.size() - std::string_view("]}").size());
    chunk_tail_ = meta_.include_usage ? R"(],"usage":null})" : "]}";
  }
  return absl::StrCat(chunk_head_, DumpJson(choice), chunk_tail_);
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
