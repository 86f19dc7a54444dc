#pragma once
// The OpenAI request bodies as structs: JSON in, GenerateCall out. The last place that sees a
// client's JSON. Checks shapes and types; ranges are the service's, except where OpenAI's range
// differs from it (logprobs).

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/chat_template.h"
#include "server/generation_service.h"
#include "server/http/unknown_fields.h"

namespace nsa {

// What /v1/completions and /v1/chat/completions ask for.
struct GenerationRequest {
  std::vector<GenerateCall> calls;  // one per prompt; they differ in `input` only
  bool stream = false;
  bool include_usage = false;  // in the stream
};

// A list of prompts is at most this long.
inline constexpr size_t kMaxPrompts = 1024;

absl::StatusOr<GenerationRequest> ParseCompletionRequest(
    std::string_view body, UnknownFields unknown = UnknownFields::kIgnored);
absl::StatusOr<GenerationRequest> ParseChatRequest(std::string_view body,
                                                   UnknownFields unknown = UnknownFields::kIgnored);

// POST /tokenize: exactly one of prompt and messages.
struct TokenizeCall {
  std::string model;
  std::optional<std::string> prompt;
  std::vector<ChatMessage> messages;
  bool add_special_tokens = true;  // with prompt
};
absl::StatusOr<TokenizeCall> ParseTokenizeRequest(std::string_view body,
                                                  UnknownFields unknown = UnknownFields::kIgnored);

// POST /detokenize.
struct DetokenizeCall {
  std::string model;
  std::vector<int64_t> tokens;
};
absl::StatusOr<DetokenizeCall> ParseDetokenizeRequest(
    std::string_view body, UnknownFields unknown = UnknownFields::kIgnored);

}  // namespace nsa
