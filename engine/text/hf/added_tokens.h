#pragma once
// The added_tokens of tokenizer.json: tokens that stand beside the vocabulary.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/hf/normalizer.h"
#include "engine/text/json_text.h"
#include "engine/text/token_matcher.h"

namespace nsa::hf {

inline constexpr int64_t kMaxTokenId = (int64_t{1} << 20) - 1;  // public vocabularies have 262144

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool is_special = false;     // a control token: never made from text
  bool is_normalized = false;  // looked for in normalized text
};

// `node`: the file's added_tokens. UNIMPLEMENTED: a token that takes spaces beside it along, or
// wants to stand alone. Errors name the token.
absl::StatusOr<std::vector<AddedToken>> ParseAddedTokens(const JsonNode& node);

// Finds the added tokens that are no control tokens in a text. Immutable.
class AddedTokenSplitter {
 public:
  AddedTokenSplitter(const std::vector<AddedToken>& tokens, const Normalizer& normalizer);

  using OnText = std::function<absl::Status(std::string_view normalized)>;
  using OnToken = std::function<void(int32_t token)>;
  // Calls `on_text` for each normalized text between tokens and `on_token` for each token, in the
  // order of `text`; stops at the first error.
  absl::Status Split(std::string_view text, const OnText& on_text, const OnToken& on_token) const;

 private:
  const Normalizer normalizer_;
  TokenMatcher raw_, normalized_;
};

}  // namespace nsa::hf
