#include "server/call_checks.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/utf8.h"
#include "server/error_detail.h"

namespace nsa {
namespace {

// Below it the division of logits by the temperature could overflow; the result is greedy anyway.
constexpr double kGreedyTemperature = 1e-5;
constexpr int64_t kMaxEchoedBytes = 64;  // of a client's text in a message

constexpr std::array<std::string_view, 4> kRoles = {"system", "developer", "user", "assistant"};

enum class Bound : uint8_t { kIncluded, kExcluded };

// `value` in [low, high], or in (low, high]. NaN lies in no range.
absl::Status CheckRange(const std::string& field, double value, double low, double high,
                        Bound low_bound = Bound::kIncluded) {
  const bool is_above = low_bound == Bound::kIncluded ? value >= low : value > low;
  if (is_above && value <= high) return absl::OkStatus();
  return InvalidValue(
      field, absl::StrCat(field, " is ", value, "; allowed: ",
                          low_bound == Bound::kIncluded ? "" : "above ", low, " to ", high));
}

absl::Status CheckIntRange(const std::string& field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidValue(field, absl::StrCat(field, " is ", value, "; allowed: ", low, " to ", high));
}

absl::StatusOr<SamplingParams> CheckSampling(const GenerateCall& call,
                                             const SamplingDefaults& defaults, int64_t vocab_size) {
  const double temperature = call.temperature.value_or(defaults.temperature);
  const double top_p = call.top_p.value_or(defaults.top_p);
  const double min_p = call.min_p.value_or(defaults.min_p);
  const int64_t top_k = call.top_k.value_or(defaults.top_k);
  NSA_RETURN_IF_ERROR(CheckRange("temperature", temperature, 0, kMaxTemperature));
  NSA_RETURN_IF_ERROR(CheckRange("top_p", top_p, 0, 1, Bound::kExcluded));
  NSA_RETURN_IF_ERROR(CheckRange("min_p", min_p, 0, 1));
  if (top_k < -1) {
    return InvalidValue(
        "top_k", absl::StrCat("top_k is ", top_k, "; allowed: -1 or 0 (off), or at least 1"));
  }
  SamplingParams sampling;
  sampling.temperature = temperature < kGreedyTemperature ? 0.0F : static_cast<float>(temperature);
  sampling.top_p = std::max(static_cast<float>(top_p), std::numeric_limits<float>::min());
  sampling.min_p = static_cast<float>(min_p);
  sampling.top_k = top_k < 1 || top_k >= vocab_size ? 0 : static_cast<int32_t>(top_k);
  sampling.seed = call.seed.value_or(0);
  return sampling;
}

absl::StatusOr<LogitRules> CheckRules(const GenerateCall& call, int64_t vocab_size) {
  const double presence = call.presence_penalty.value_or(0);
  const double frequency = call.frequency_penalty.value_or(0);
  const double repetition = call.repetition_penalty.value_or(1);
  NSA_RETURN_IF_ERROR(CheckRange("presence_penalty", presence, -kMaxPenalty, kMaxPenalty));
  NSA_RETURN_IF_ERROR(CheckRange("frequency_penalty", frequency, -kMaxPenalty, kMaxPenalty));
  NSA_RETURN_IF_ERROR(
      CheckRange("repetition_penalty", repetition, kMinRepetitionPenalty, kMaxRepetitionPenalty));
  if (static_cast<int64_t>(call.logit_bias.size()) > kMaxLogitBiases) {
    return InvalidValue(
        "logit_bias", absl::StrCat("logit_bias has ", call.logit_bias.size(), " entries; at most ",
                                   kMaxLogitBiases, " are allowed"));
  }
  LogitRules rules{.presence_penalty = static_cast<float>(presence),
                   .frequency_penalty = static_cast<float>(frequency),
                   .repetition_penalty = static_cast<float>(repetition),
                   .min_tokens = call.min_tokens.value_or(0)};
  for (const auto& [token, bias] : call.logit_bias) {
    if (token < 0 || token >= vocab_size) {
      return InvalidValue("logit_bias", absl::StrCat("logit_bias names token ", token,
                                                     "; token ids go from 0 to ", vocab_size - 1));
    }
    NSA_RETURN_IF_ERROR(CheckRange("logit_bias", bias, -kMaxLogitBias, kMaxLogitBias));
    rules.bias.push_back({.token = static_cast<int32_t>(token), .bias = static_cast<float>(bias)});
  }
  if (rules.min_tokens < 0) {
    return InvalidValue("min_tokens",
                        absl::StrCat("min_tokens is ", rules.min_tokens, "; allowed: at least 0"));
  }
  return rules;
}

absl::Status CheckStop(const std::vector<std::string>& stop) {
  if (static_cast<int64_t>(stop.size()) > kMaxStopStrings) {
    return InvalidValue("stop", absl::StrCat("stop has ", stop.size(), " strings; at most ",
                                             kMaxStopStrings, " are allowed"));
  }
  for (const std::string& text : stop) {
    if (text.empty()) return InvalidValue("stop", "stop has an empty string");
    if (static_cast<int64_t>(text.size()) > kMaxStopBytes) {
      return InvalidValue("stop", absl::StrCat("stop has a string of ", text.size(),
                                               " bytes; at most ", kMaxStopBytes, " are allowed"));
    }
    NSA_RETURN_IF_ERROR(CheckText(text, "stop"));
  }
  return absl::OkStatus();
}

absl::Status CheckChoices(const GivenConstraint& given) {
  const std::vector<std::string>& choices = given.spec.choices;
  if (choices.empty()) return InvalidValue(given.field, absl::StrCat(given.field, " is empty"));
  if (static_cast<int64_t>(choices.size()) <= kMaxConstraintChoices) return absl::OkStatus();
  return InvalidValue(given.field,
                      absl::StrCat(given.field, " has ", choices.size(), " entries; at most ",
                                   kMaxConstraintChoices, " are allowed"));
}

// The call's only constraint, or null. Whether it can be compiled shows later.
absl::StatusOr<std::shared_ptr<const GivenConstraint>> CheckConstraint(const GenerateCall& call) {
  if (call.constraints.empty()) return nullptr;
  const GivenConstraint& given = *call.constraints.front();
  if (call.constraints.size() > 1) {
    const std::string& other = call.constraints[1]->field;
    return InvalidValue(other, absl::StrCat(other, " and ", given.field, " exclude each other"));
  }
  if (given.spec.kind == ConstraintKind::kChoice) NSA_RETURN_IF_ERROR(CheckChoices(given));
  auto num_bytes = static_cast<int64_t>(given.spec.source.size());
  for (const std::string& choice : given.spec.choices) {
    num_bytes += static_cast<int64_t>(choice.size());
    NSA_RETURN_IF_ERROR(CheckText(choice, given.field));
  }
  if (num_bytes > kMaxConstraintBytes) {
    return InvalidValue(given.field,
                        absl::StrCat(given.field, " has ", num_bytes, " bytes; at most ",
                                     kMaxConstraintBytes, " are allowed"));
  }
  NSA_RETURN_IF_ERROR(CheckText(given.spec.source, given.field));
  return call.constraints.front();
}

// Chat spells the number of alternatives "top_logprobs".
std::string LogprobsField(const GenerateCall& call) {
  const bool is_chat = std::holds_alternative<std::vector<ChatMessage>>(call.input);
  return is_chat ? "top_logprobs" : "logprobs";
}

absl::Status ContextExceeded(const std::string& field, const std::string& message) {
  return WithDetail(absl::InvalidArgumentError(message),
                    {.param = field, .code = "context_length_exceeded"});
}

// "the messages have", "the prompt has"
std::string SubjectHas(const std::string& field) {
  return absl::StrCat("the ", field, field == "messages" ? " have " : " has ");
}

absl::Status CheckBytesFit(int64_t num_bytes, const std::string& field, const TextRoom& room) {
  const int64_t max_bytes = room.max_request_tokens * room.max_token_bytes;
  if (num_bytes <= max_bytes) return absl::OkStatus();
  return ContextExceeded(
      field, absl::StrCat(SubjectHas(field), num_bytes, " bytes; at most ", room.max_request_tokens,
                          " tokens are allowed, which hold at most ", max_bytes, " bytes"));
}

}  // namespace

absl::Status InvalidValue(const std::string& field, const std::string& message) {
  return WithDetail(absl::InvalidArgumentError(message), {.param = field, .code = "invalid_value"});
}

absl::StatusOr<CallOptions> CheckOptions(const GenerateCall& call, const SamplingDefaults& defaults,
                                         int64_t vocab_size) {
  CallOptions options;
  NSA_ASSIGN_OR_RETURN(options.sampling, CheckSampling(call, defaults, vocab_size));
  NSA_ASSIGN_OR_RETURN(options.rules, CheckRules(call, vocab_size));
  options.num_choices = call.n.value_or(1);
  NSA_RETURN_IF_ERROR(CheckIntRange("n", options.num_choices, 1, kMaxChoices));
  options.max_tokens = call.max_tokens;
  if (call.max_tokens.value_or(1) < 1) {
    return InvalidValue("max_tokens",
                        absl::StrCat("max_tokens is ", *call.max_tokens, "; allowed: at least 1"));
  }
  if (call.num_logprobs.has_value()) {
    NSA_RETURN_IF_ERROR(CheckIntRange(LogprobsField(call), *call.num_logprobs, 0, kMaxTopLogprobs));
    options.num_top_logprobs = static_cast<int32_t>(*call.num_logprobs);
  }
  if (call.echo && std::holds_alternative<std::vector<ChatMessage>>(call.input)) {
    return InvalidValue("echo", "echo is not allowed in chat");
  }
  NSA_RETURN_IF_ERROR(CheckStop(call.stop));
  if (static_cast<int64_t>(call.stop_token_ids.size()) > kMaxStopTokenIds) {
    return InvalidValue("stop_token_ids",
                        absl::StrCat("stop_token_ids has ", call.stop_token_ids.size(),
                                     " entries; at most ", kMaxStopTokenIds, " are allowed"));
  }
  NSA_ASSIGN_OR_RETURN(options.stop_token_ids,
                       CheckTokenIds(call.stop_token_ids, "stop_token_ids", vocab_size));
  if (static_cast<int64_t>(call.cache_salt.size()) > kMaxSaltBytes) {
    return InvalidValue("cache_salt",
                        absl::StrCat("cache_salt has ", call.cache_salt.size(), " bytes; at most ",
                                     kMaxSaltBytes, " are allowed"));
  }
  const int64_t priority = call.priority.value_or(0);
  NSA_RETURN_IF_ERROR(CheckIntRange("priority", priority, -kMaxPriority, kMaxPriority));
  options.priority = static_cast<int32_t>(priority);
  NSA_ASSIGN_OR_RETURN(options.constraint, CheckConstraint(call));
  if (call.timeout_seconds.has_value()) {
    NSA_RETURN_IF_ERROR(
        CheckRange("timeout", *call.timeout_seconds, 0, kMaxTimeoutSeconds, Bound::kExcluded));
    options.timeout = absl::Seconds(*call.timeout_seconds);
  }
  return options;
}

absl::Status CheckTrace(const GenerateCall& call, const ModelInfo& model) {
  if (!call.trace.has_value()) return absl::OkStatus();
  if (model.attention != "nsa") {
    return InvalidValue("nsa_trace", absl::StrCat("nsa_trace needs sparse attention; this server ",
                                                  "runs ", model.attention, " attention"));
  }
  std::vector<bool> is_named(model.config.num_layers);
  for (const int64_t layer : call.trace->layers) {
    NSA_RETURN_IF_ERROR(CheckIntRange("nsa_trace.layers", layer, 0, model.config.num_layers - 1));
    if (is_named[layer]) {
      return InvalidValue("nsa_trace.layers",
                          absl::StrCat("nsa_trace.layers names layer ", layer, " twice"));
    }
    is_named[layer] = true;
  }
  return absl::OkStatus();
}

absl::Status CheckMinTokens(int64_t min_tokens, int64_t max_tokens) {
  if (min_tokens <= max_tokens) return absl::OkStatus();
  return InvalidValue("min_tokens", absl::StrCat("min_tokens is ", min_tokens, "; at most ",
                                                 max_tokens, " tokens can be generated"));
}

absl::StatusOr<std::vector<int32_t>> CheckTokenIds(const std::vector<int64_t>& ids,
                                                   const std::string& field, int64_t vocab_size) {
  std::vector<int32_t> tokens;
  tokens.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size) {
      return InvalidValue(field, absl::StrCat(field, "[", i, "] is ", ids[i],
                                              "; token ids go from 0 to ", vocab_size - 1));
    }
    tokens.push_back(static_cast<int32_t>(ids[i]));
  }
  return tokens;
}

absl::Status CheckMessages(const std::vector<ChatMessage>& messages) {
  if (messages.empty()) return InvalidValue("messages", "messages is empty");
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string field = absl::StrCat("messages[", i, "]");
    if (std::find(kRoles.begin(), kRoles.end(), messages[i].role) == kRoles.end()) {
      return InvalidValue(
          field + ".role",
          absl::StrCat(field, ".role is '", ClipUtf8(messages[i].role, kMaxEchoedBytes),
                       "'; allowed: system, developer, user, assistant"));
    }
    NSA_RETURN_IF_ERROR(CheckText(messages[i].content, field + ".content"));
  }
  return absl::OkStatus();
}

absl::Status CheckText(const std::string& text, const std::string& field) {
  if (IsValidUtf8(text)) return absl::OkStatus();
  return InvalidValue(field, absl::StrCat(field, " is not valid UTF-8"));
}

absl::Status CheckTextFits(const std::string& text, const TextRoom& room) {
  return CheckBytesFit(static_cast<int64_t>(text.size()), "prompt", room);
}

absl::Status CheckMessagesFit(const std::vector<ChatMessage>& messages, const TextRoom& room) {
  // A message takes a token at least; rendering a million empty ones is work, too.
  const auto num_messages = static_cast<int64_t>(messages.size());
  if (num_messages > room.max_request_tokens) {
    return ContextExceeded("messages",
                           absl::StrCat("there are ", num_messages, " messages; at most ",
                                        room.max_request_tokens, " tokens are allowed"));
  }
  return CheckBytesFit(NumBytes(messages), "messages", room);
}

absl::Status CheckTokenizeBytes(int64_t num_bytes, const std::string& field) {
  if (num_bytes <= kMaxTokenizeBytes) return absl::OkStatus();
  return InvalidValue(field, absl::StrCat(SubjectHas(field), num_bytes, " bytes; at most ",
                                          kMaxTokenizeBytes, " are tokenized"));
}

absl::Status CheckDetokenizeTokens(int64_t num_tokens) {
  if (num_tokens <= kMaxDetokenizeTokens) return absl::OkStatus();
  return InvalidValue("tokens", absl::StrCat("tokens has ", num_tokens, " entries; at most ",
                                             kMaxDetokenizeTokens, " are detokenized"));
}

int64_t NumBytes(const std::vector<ChatMessage>& messages) {
  size_t num_bytes = 0;
  for (const ChatMessage& message : messages) {
    num_bytes += message.role.size() + message.content.size();
  }
  return static_cast<int64_t>(num_bytes);
}

absl::StatusOr<int64_t> CheckMaxTokens(std::optional<int64_t> wish, const ContextRoom& room) {
  const int64_t left = room.max_request_tokens - room.num_prompt_tokens;
  if (left >= wish.value_or(1)) {
    if (wish.has_value()) return *wish;
    return room.is_chat ? left : std::min(left, kDefaultCompletionTokens);
  }
  const std::string field = room.is_chat ? "messages" : "prompt";
  const std::string message = absl::StrCat(
      SubjectHas(field), room.num_prompt_tokens, " tokens and ", wish.value_or(1),
      " are to be generated; together at most ", room.max_request_tokens, " are allowed",
      room.limited_by_cache ? ", which is all that the server's cache holds" : "");
  return ContextExceeded(field, message);
}

}  // namespace nsa
