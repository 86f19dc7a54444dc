#include "server/http/openai_types.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "server/call_checks.h"
#include "server/http/constraint_fields.h"
#include "server/http/json_reader.h"
#include "server/http/unsupported_fields.h"

namespace nsa {
namespace {

using nlohmann::json;

constexpr int64_t kMaxCompletionLogprobs = 5;

// {"token id": bias}
void ReadLogitBias(JsonFields* fields, GenerateCall* call) {
  const json* biases = fields->Object("logit_bias");
  if (biases == nullptr) return;
  for (const auto& [key, bias] : biases->items()) {
    int64_t token = 0;
    if (!absl::SimpleAtoi(key, &token)) {
      return fields->Refuse("logit_bias", "has a key that is not a token id");
    }
    if (!bias.is_number()) {
      return fields->RefuseType(absl::StrCat("logit_bias.", token), "a number", bias);
    }
    call->logit_bias.emplace_back(token, bias.get<double>());
  }
}

// The fields that both endpoints share.
GenerateCall ReadCommonFields(std::string_view body, JsonFields* fields) {
  GenerateCall call;
  call.model = fields->String("model").value_or("");
  call.max_tokens = fields->Int("max_tokens");
  if (const auto tokens = fields->Int("max_completion_tokens")) {
    // The service knows it as max_tokens.
    if (*tokens < 1) {
      fields->Refuse("max_completion_tokens",
                     absl::StrCat("is ", *tokens, "; allowed: at least 1"));
    }
    call.max_tokens = tokens;
  }
  call.temperature = fields->Number("temperature");
  call.top_p = fields->Number("top_p");
  call.min_p = fields->Number("min_p");
  call.top_k = fields->Int("top_k");
  call.presence_penalty = fields->Number("presence_penalty");
  call.frequency_penalty = fields->Number("frequency_penalty");
  call.repetition_penalty = fields->Number("repetition_penalty");
  call.min_tokens = fields->Int("min_tokens");
  call.priority = fields->Int("priority");
  ReadLogitBias(fields, &call);
  call.echo = fields->Bool("echo").value_or(false);
  call.n = fields->Int("n");
  call.seed = fields->Bits("seed");  // a negative one is as good as another
  call.stop = fields->StringOrList("stop").value_or(std::vector<std::string>());
  call.stop_token_ids = fields->IntList("stop_token_ids").value_or(std::vector<int64_t>());
  call.ignore_eos = fields->Bool("ignore_eos").value_or(false);
  call.include_stop_text = fields->Bool("include_stop_str_in_output").value_or(false);
  call.timeout_seconds = fields->Number("timeout");
  call.cache_salt = fields->String("cache_salt").value_or("");
  fields->String("user");  // only its type matters
  const auto best_of = fields->Int("best_of");
  if (best_of.has_value() && *best_of != call.n.value_or(1)) {
    fields->Refuse("best_of", absl::StrCat("is ", *best_of, "; it must be equal to n, which is ",
                                           call.n.value_or(1)));
  }
  ReadConstraintFields(body, fields, &call);
  RefuseUnsupportedFields(fields);
  return call;
}

// true, or {"layers": [...]}
std::optional<TraceWish> ReadTrace(JsonFields* fields) {
  const json* value = fields->Find("nsa_trace");
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) {
    return value->get<bool>() ? std::optional<TraceWish>(TraceWish()) : std::nullopt;
  }
  if (!value->is_object()) {
    fields->RefuseType("nsa_trace", "true, false or an object", *value);
    return std::nullopt;
  }
  JsonFields inner = fields->Inner("nsa_trace", *value);
  TraceWish wish{.layers = inner.IntList("layers").value_or(std::vector<int64_t>())};
  fields->Merge(inner.Finish());
  return wish;
}

// The fields of the response's form; `call` gets the trace, which only a stream has.
void ReadStreamFields(JsonFields* fields, GenerateCall* call, GenerationRequest* request) {
  request->stream = fields->Bool("stream").value_or(false);
  call->trace = ReadTrace(fields);
  if (call->trace.has_value() && !request->stream) {
    fields->Refuse("nsa_trace", "is allowed only with stream");
  }
  const json* options = fields->Object("stream_options");
  if (options == nullptr) return;
  if (!request->stream) return fields->Refuse("stream_options", "is allowed only with stream");
  JsonFields inner = fields->Inner("stream_options", *options);
  request->include_usage = inner.Bool("include_usage").value_or(false);
  fields->Merge(inner.Finish());
}

// --- prompts -----------------------------------------------------------------------------------

using Input = decltype(GenerateCall::input);

// One prompt of a list: a string or a list of token ids.
std::optional<Input> ReadPrompt(JsonFields* fields, const std::string& key, const json& value) {
  if (value.is_string()) return Input(value.get<std::string>());
  if (!value.is_array()) {
    fields->RefuseType(key, "a string or a list of token ids", value);
    return std::nullopt;
  }
  std::optional<std::vector<int64_t>> tokens = fields->IntListOf(key, value);
  if (!tokens.has_value()) return std::nullopt;
  return Input(*std::move(tokens));
}

std::vector<Input> ReadPrompts(JsonFields* fields) {
  const json* value = fields->Find("prompt");
  if (value == nullptr) {
    fields->RefuseMissing("prompt");
    return {};
  }
  if (!value->is_string() && !value->is_array()) {
    fields->RefuseType("prompt", "a string, a list of token ids or a list of either", *value);
    return {};
  }
  const bool is_list = value->is_array() && !value->empty() &&
                       (value->front().is_string() || value->front().is_array());
  std::vector<Input> prompts;
  if (!is_list) {
    if (auto prompt = ReadPrompt(fields, "prompt", *value)) prompts.push_back(*std::move(prompt));
    return prompts;
  }
  if (value->size() > kMaxPrompts) {
    fields->Refuse("prompt",
                   absl::StrCat("has ", value->size(), " prompts; the limit is ", kMaxPrompts));
    return {};
  }
  for (const json& item : *value) {
    auto prompt = ReadPrompt(fields, absl::StrCat("prompt[", prompts.size(), "]"), item);
    if (!prompt.has_value()) return {};
    prompts.push_back(*std::move(prompt));
  }
  return prompts;
}

// --- messages ----------------------------------------------------------------------------------

// A message's text: a string, or a list of {"type":"text","text"} parts, which are joined.
std::string ReadContent(JsonFields* message) {
  const json* content = message->Find("content");
  if (content == nullptr) {
    message->RefuseMissing("content");
    return "";
  }
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) {
    message->RefuseType("content", "a string or a list of text parts", *content);
    return "";
  }
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    const std::string name = absl::StrCat("content[", i, "]");
    if (!(*content)[i].is_object()) {
      message->RefuseType(name, "an object", (*content)[i]);
      return "";
    }
    JsonFields part = message->Inner(name, (*content)[i]);
    const std::optional<std::string> type = part.String("type");
    if (!type.has_value()) part.RefuseMissing("type");
    if (type.has_value() && *type != "text") {
      part.Refuse("type", "is not supported; all that is allowed is \"text\"");
    }
    const std::optional<std::string> part_text = part.String("text");
    if (!part_text.has_value()) part.RefuseMissing("text");
    message->Merge(part.Finish());
    text += part_text.value_or("");
  }
  return text;
}

ChatMessage ReadMessage(JsonFields* message) {
  ChatMessage result{.role = message->String("role").value_or("")};
  if (message->Find("role") == nullptr) message->RefuseMissing("role");
  message->String("name");  // only its type matters
  const json* tool_calls = message->Find("tool_calls");
  if (tool_calls != nullptr && !(tool_calls->is_array() && tool_calls->empty())) {
    message->Refuse("tool_calls", "is not supported; all that is allowed is an empty list");
  }
  result.content = ReadContent(message);
  return result;
}

std::vector<ChatMessage> ReadMessages(JsonFields* fields) {
  const json* value = fields->Find("messages");
  if (value == nullptr) {
    fields->RefuseMissing("messages");
    return {};
  }
  if (!value->is_array()) {
    fields->RefuseType("messages", "a list of messages", *value);
    return {};
  }
  std::vector<ChatMessage> messages;
  for (size_t i = 0; i < value->size() && fields->status().ok(); ++i) {
    const std::string name = absl::StrCat("messages[", i, "]");
    if (!(*value)[i].is_object()) {
      fields->RefuseType(name, "an object", (*value)[i]);
      break;
    }
    JsonFields message = fields->Inner(name, (*value)[i]);
    messages.push_back(ReadMessage(&message));
    fields->Merge(message.Finish());
  }
  return messages;
}

// Chat: logprobs is a switch, top_logprobs the number of alternatives.
std::optional<int64_t> ReadChatLogprobs(JsonFields* fields) {
  const bool wanted = fields->Bool("logprobs").value_or(false);
  const std::optional<int64_t> top = fields->Int("top_logprobs");
  if (!wanted && top.value_or(0) != 0) {
    fields->Refuse("top_logprobs", "is allowed only with logprobs true");
  }
  if (!wanted) return std::nullopt;
  return top.value_or(0);
}

}  // namespace

absl::StatusOr<GenerationRequest> ParseCompletionRequest(std::string_view body,
                                                         UnknownFields unknown) {
  NSA_ASSIGN_OR_RETURN(const json document, ParseJsonObject(body));
  JsonFields fields(document, "", unknown);
  GenerationRequest request;
  std::vector<Input> prompts = ReadPrompts(&fields);
  GenerateCall call = ReadCommonFields(body, &fields);
  call.num_logprobs = fields.Int("logprobs");
  if (fields.Find("top_logprobs") != nullptr) {
    fields.Refuse("top_logprobs", "belongs to chat; completions count alternatives in logprobs");
  }
  const int64_t num_logprobs = call.num_logprobs.value_or(0);
  if (num_logprobs < 0 || num_logprobs > kMaxCompletionLogprobs) {
    fields.Refuse("logprobs", absl::StrCat("is ", num_logprobs, "; it must be from 0 to ",
                                           kMaxCompletionLogprobs));
  }
  ReadStreamFields(&fields, &call, &request);
  NSA_RETURN_IF_ERROR(fields.Finish());
  for (Input& prompt : prompts) {
    request.calls.push_back(call);
    request.calls.back().input = std::move(prompt);
  }
  return request;
}

absl::StatusOr<GenerationRequest> ParseChatRequest(std::string_view body, UnknownFields unknown) {
  NSA_ASSIGN_OR_RETURN(const json document, ParseJsonObject(body));
  JsonFields fields(document, "", unknown);
  GenerationRequest request;
  std::vector<ChatMessage> messages = ReadMessages(&fields);
  GenerateCall call = ReadCommonFields(body, &fields);
  call.num_logprobs = ReadChatLogprobs(&fields);
  ReadStreamFields(&fields, &call, &request);
  NSA_RETURN_IF_ERROR(fields.Finish());
  call.input = std::move(messages);
  request.calls.push_back(std::move(call));
  return request;
}

absl::StatusOr<TokenizeCall> ParseTokenizeRequest(std::string_view body, UnknownFields unknown) {
  NSA_ASSIGN_OR_RETURN(const json document, ParseJsonObject(body));
  JsonFields fields(document, "", unknown);
  TokenizeCall call{.model = fields.String("model").value_or("")};
  const bool has_messages = fields.Find("messages") != nullptr;
  const bool has_prompt = fields.Find("prompt") != nullptr;
  if (has_messages && has_prompt) fields.Refuse("messages", "and 'prompt' exclude each other");
  if (!has_messages && !has_prompt) fields.RefuseMissing("prompt");
  call.prompt = fields.String("prompt");
  if (has_messages) call.messages = ReadMessages(&fields);
  call.add_special_tokens = fields.Bool("add_special_tokens").value_or(true);
  NSA_RETURN_IF_ERROR(fields.Finish());
  return call;
}

absl::StatusOr<DetokenizeCall> ParseDetokenizeRequest(std::string_view body,
                                                      UnknownFields unknown) {
  NSA_ASSIGN_OR_RETURN(const json document, ParseJsonObject(body));
  JsonFields fields(document, "", unknown);
  DetokenizeCall call{.model = fields.String("model").value_or("")};
  if (fields.Find("tokens") == nullptr) fields.RefuseMissing("tokens");
  call.tokens = fields.IntList("tokens").value_or(std::vector<int64_t>());
  NSA_RETURN_IF_ERROR(fields.Finish());
  return call;
}

}  // namespace nsa
