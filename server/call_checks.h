#pragma once
// The one validator behind both transports: every limit on a field of a call. An error is
// INVALID_ARGUMENT with the value, the limit, and an ErrorDetail.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/sampling.h"
#include "server/generation_service.h"

namespace nsa {

inline constexpr double kMaxTemperature = 2;
inline constexpr double kMaxPenalty = 2;  // of presence and frequency, either sign
// A factor that brings no logit to the ends of its range.
inline constexpr double kMinRepetitionPenalty = 0.01, kMaxRepetitionPenalty = 100;
inline constexpr double kMaxLogitBias = 100;  // either sign
inline constexpr int64_t kMaxLogitBiases = 1024;
inline constexpr int64_t kMaxChoices = 128;
inline constexpr int64_t kMaxStopStrings = 64;
inline constexpr int64_t kMaxStopBytes = 1024;  // of one stop string
inline constexpr int64_t kMaxStopTokenIds = 1024;
inline constexpr int64_t kMaxSaltBytes = 256;
inline constexpr int64_t kMaxPriority = 20;  // either sign
inline constexpr int64_t kMaxConstraintBytes = ConstraintLimits().max_source_bytes;
inline constexpr int64_t kMaxConstraintChoices = 1024;  // texts that an answer may be
inline constexpr double kMaxTimeoutSeconds = 86400;
inline constexpr int64_t kDefaultCompletionTokens = 16;
inline constexpr int64_t kMaxTokenizeBytes = 1 << 20;     // of a text that is only tokenized
inline constexpr int64_t kMaxDetokenizeTokens = 1 << 18;  // of a list that is only detokenized

// The fields that do not concern the prompt, checked, defaults filled in.
struct CallOptions {
  SamplingParams sampling;  // seed left at 0 where the call gives none
  LogitRules rules;
  int64_t num_choices = 1;
  std::optional<int64_t> max_tokens;
  int32_t priority = 0;
  int32_t num_top_logprobs = -1;  // as Request::num_top_logprobs
  std::vector<int32_t> stop_token_ids;
  absl::Duration timeout = absl::InfiniteDuration();
  std::shared_ptr<const GivenConstraint> constraint;  // null: none
};
absl::StatusOr<CallOptions> CheckOptions(const GenerateCall& call, const SamplingDefaults& defaults,
                                         int64_t vocab_size);

// `ids` as token ids; `field` is named if one lies outside the vocabulary.
absl::StatusOr<std::vector<int32_t>> CheckTokenIds(const std::vector<int64_t>& ids,
                                                   const std::string& field, int64_t vocab_size);

// At least one message, each of a known role and valid UTF-8.
absl::Status CheckMessages(const std::vector<ChatMessage>& messages);

// Valid UTF-8.
absl::Status CheckText(const std::string& text, const std::string& field);

// Before a text is tokenized: whether its bytes can fit into the context at all, else
// context_length_exceeded. A normalizer that shortens texts is not taken into account.
struct TextRoom {
  int64_t max_request_tokens = 0;
  int64_t max_token_bytes = 0;
};
absl::Status CheckTextFits(const std::string& text, const TextRoom& room);
// The same for a chat, before it is rendered: its bytes and its number of messages.
absl::Status CheckMessagesFit(const std::vector<ChatMessage>& messages, const TextRoom& room);

// Of what is only tokenized or detokenized, which may be longer than a context.
absl::Status CheckTokenizeBytes(int64_t num_bytes, const std::string& field);
absl::Status CheckDetokenizeTokens(int64_t num_tokens);

// Bytes of all roles and contents.
int64_t NumBytes(const std::vector<ChatMessage>& messages);

// How many tokens may be generated: the call's wish if it fits behind the prompt, else
// context_length_exceeded. Without a wish: chat gets all that is left, a completion
// kDefaultCompletionTokens or what is left.
struct ContextRoom {
  int64_t num_prompt_tokens = 0;
  int64_t max_request_tokens = 0;
  bool limited_by_cache = false;  // as ModelInfo
  bool is_chat = false;
};
absl::StatusOr<int64_t> CheckMaxTokens(std::optional<int64_t> wish, const ContextRoom& room);

// The call's wish for traces, if it has one: the model must choose blocks and have the layers, each
// named once.
absl::Status CheckTrace(const GenerateCall& call, const ModelInfo& model);

// `min_tokens` against the tokens that may be generated.
absl::Status CheckMinTokens(int64_t min_tokens, int64_t max_tokens);

// INVALID_ARGUMENT with code invalid_value.
absl::Status InvalidValue(const std::string& field, const std::string& message);

}  // namespace nsa
