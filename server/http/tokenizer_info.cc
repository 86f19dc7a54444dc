// GET /tokenizer_info: in the words of transformers' tokenizer_config.json, as vLLM has it.

#include "absl/strings/str_cat.h"
#include "server/http/endpoints.h"
#include "server/http/response_shape.h"

namespace nsa {
namespace {

using Json = nlohmann::ordered_json;

Json TextOrNull(const std::optional<std::string>& text) {
  return text.has_value() ? Json(*text) : Json();
}

}  // namespace

void HandleTokenizerInfo(const ApiContext& api, const HttpRequest&,
                         std::shared_ptr<HttpResponder> responder) {
  const TokenizerInfo& info = api.service->tokenizer_info();
  Json special_tokens = Json::object();
  for (const ControlToken& token : info.special_tokens) {
    special_tokens[absl::StrCat(token.token)] = {{"content", token.text}, {"special", true}};
  }
  const int64_t max_model_len = api.service->model().max_request_tokens;
  const Json body = {
      {"tokenizer_class", info.class_name},
      {"bos_token", TextOrNull(info.bos_token)},
      {"eos_token", TextOrNull(info.eos_token)},
      {"unk_token", TextOrNull(info.unk_token)},
      {"pad_token", TextOrNull(info.pad_token)},
      {"added_tokens_decoder", std::move(special_tokens)},
      {"chat_template", info.chat_template.empty() ? Json() : Json(info.chat_template)},
      {"vocab_size", info.vocab_size},
      {"model_max_length", max_model_len},
      {"max_model_len", max_model_len}};
  responder->Send({.body = DumpJson(body)});
}

}  // namespace nsa
