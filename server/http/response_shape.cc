#include "server/http/response_shape.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"

namespace nsa {
namespace {

constexpr size_t kMaxLogprobValues = 256;  // tokens whose log-probabilities are values at one time

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

void ResponseShape::Collect(const GenerateEvent& delta, CollectedChoice* choice,
                            int64_t* num_bytes) const {
  *num_bytes += static_cast<int64_t>(delta.text.size()) - choice->logprobs.num_bytes();
  choice->text += delta.text;
  choice->position.AddText(delta.text);
  std::span<const TokenLogprob> rest = delta.logprobs;  // those of a prompt are many
  while (!rest.empty()) {
    const size_t num_next = std::min(rest.size(), kMaxLogprobValues);
    choice->logprobs.Append(LogprobsOf(rest.first(num_next), &choice->position));
    rest = rest.subspan(num_next);
  }
  *num_bytes += choice->logprobs.num_bytes();
  if (delta.finish != FinishReason::kNone) choice->finish = delta.finish;
}

std::string ResponseShape::ChoiceText(int64_t index, const CollectedChoice& choice) const {
  std::string text = DumpJson(ChoiceOf(index, choice));
  if (!meta_.with_logprobs) return text;
  JoinedArrays logprobs;
  TextPosition start;
  if (choice.logprobs.num_bytes() == 0) logprobs.Append(LogprobsOf({}, &start));
  // Found nowhere else: within a string a quote has a backslash before it.
  const size_t at = text.find(R"("logprobs":null)") + std::string_view(R"("logprobs":)").size();
  return text.replace(at, std::string_view("null").size(),
                      logprobs.num_bytes() > 0 ? logprobs.Text() : choice.logprobs.Text());
}

std::string ResponseShape::Body(std::vector<CollectedChoice> choices, const Usage& usage) const {
  // The choices stand last.
  std::string body = DumpJson(Envelope(BodyObject()));
  body.resize(body.size() - std::string_view("]}").size());
  for (size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) body += ',';
    body += ChoiceText(static_cast<int64_t>(i), choices[i]);
    choices[i] = CollectedChoice();  // both need not be there
  }
  absl::StrAppend(&body, R"(],"usage":)", DumpJson(UsageJson(usage)), "}");
  return body;
}

void JoinedArrays::Append(const nlohmann::ordered_json& object) {
  if (members_.empty()) {
    for (const auto& [name, value] : object.items()) {
      members_.push_back({.name = DumpJson(name), .text = "", .is_array = value.is_array()});
      if (!value.is_array()) members_.back().text = DumpJson(value);
      num_bytes_ += static_cast<int64_t>(members_.back().name.size() + members_.back().text.size());
    }
  }
  auto member = members_.begin();
  for (const auto& value : object) {
    std::string& text = (member++)->text;
    if (!value.is_array() || value.empty()) continue;
    const std::string all = DumpJson(value);
    num_bytes_ += static_cast<int64_t>(all.size());
    absl::StrAppend(&text, text.empty() ? "" : ",", all.substr(1, all.size() - 2));
  }
}

std::string JoinedArrays::Text() const {
  std::string text;
  for (const Member& member : members_) {
    absl::StrAppend(&text, text.empty() ? "{" : ",", member.name, ":", member.is_array ? "[" : "",
                    member.text, member.is_array ? "]" : "");
  }
  return text + "}";
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
