#pragma once
// Log-probabilities in the two shapes of the OpenAI API.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "nlohmann/json.hpp"
#include "server/generation_service.h"

namespace nsa {

// A token as text; one whose bytes are not UTF-8 on their own is spelled "bytes:\xe2\x80".
std::string TokenText(std::string_view bytes);

// Where a choice's next token begins, in characters from the start of its text. A tokenizer may put
// a space in front of a text that is no part of it: the first token then has one more than the
// text.
class TextPosition {
 public:
  // What comes with the next tokens, or before them.
  void AddText(std::string_view text);
  // The character in which a token with these bytes begins.
  int64_t OffsetOf(std::string_view token_bytes) const;
  void Advance(std::string_view token_bytes);

 private:
  int64_t num_chars_ = 0;  // begun so far
  char first_of_text_ = 0;
  bool is_at_start_ = true;  // no token had bytes yet
};

// {"tokens","token_logprobs","top_logprobs","text_offset"}. The chosen token is always among its
// top_logprobs, with the same number. The position moves on, so that the chunks of a stream
// continue each other.
nlohmann::ordered_json CompletionLogprobs(std::span<const TokenLogprob> logprobs,
                                          TextPosition* position);

// {"content":[{"token","logprob","bytes","top_logprobs":[...]}],"refusal":null}
nlohmann::ordered_json ChatLogprobs(std::span<const TokenLogprob> logprobs);

}  // namespace nsa
