#include "server/http/unsupported_fields.h"

#include "absl/strings/str_cat.h"

namespace nsa {
namespace {

using nlohmann::json;

bool IsTrue(const json& value) { return value.is_boolean() && value.get<bool>(); }
bool IsFalse(const json& value) { return value.is_boolean() && !value.get<bool>(); }
bool IsEmpty(const json& value) {
  return value.is_string() ? value.get_ref<const std::string&>().empty()
                           : value.is_structured() && value.empty();
}
bool IsNoToolChoice(const json& value) { return value == "none" || value == "auto"; }
bool IsTextModality(const json& value) { return value == json::array({"text"}); }
bool Never(const json&) { return false; }

struct UnsupportedField {
  const char* name;
  bool (*is_neutral)(const json&);
  const char* allowed;  // the neutral value, for the message
};
constexpr UnsupportedField kUnsupportedFields[] = {
    {"suffix", &IsEmpty, "an empty string"},
    {"tools", &IsEmpty, "an empty list"},
    {"tool_choice", &IsNoToolChoice, "\"none\" or \"auto\""},
    {"functions", &IsEmpty, "an empty list"},
    {"function_call", &IsNoToolChoice, "\"none\" or \"auto\""},
    {"modalities", &IsTextModality, "[\"text\"]"},
    {"audio", &Never, "its absence"},
    {"web_search_options", &Never, "its absence"},
    {"prediction", &Never, "its absence"},
    {"chat_template", &Never, "its absence"},
    {"chat_template_kwargs", &IsEmpty, "{}"},
    {"add_generation_prompt", &IsTrue, "true"},
    {"continue_final_message", &IsFalse, "false"},
    {"guided_grammar", &Never, "its absence"},
    {"structured_outputs", &Never, "its absence"},
    {"return_token_ids", &IsFalse, "false"},
    {"return_tokens_as_token_ids", &IsFalse, "false"},
    {"prompt_logprobs", &Never, "its absence"},
    {"bad_words", &IsEmpty, "an empty list"},
    {"allowed_token_ids", &Never, "its absence"},
    {"truncate_prompt_tokens", &Never, "its absence"},
    {"use_beam_search", &IsFalse, "false"},
    {"skip_special_tokens", &IsTrue, "true"},
};

}  // namespace

void RefuseUnsupportedFields(JsonFields* fields) {
  for (const UnsupportedField& field : kUnsupportedFields) {
    const json* value = fields->Find(field.name);
    if (value == nullptr || field.is_neutral(*value)) continue;
    fields->Refuse(field.name,
                   absl::StrCat("is not supported; all that is allowed is ", field.allowed));
  }
}

}  // namespace nsa
