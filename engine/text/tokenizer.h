#pragma once
// Tokenizer: text <-> token ids. Thread-safe after loading.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace nsa {

// A token that steers the model and never is part of a text: "<s>", "</s>".
struct ControlToken {
  std::string text;  // as chat templates spell it
  int32_t token = 0;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // add_special_tokens puts the model's BOS (if it uses one) in front. Control tokens spelled out
  // in the text are ordinary text. INVALID_ARGUMENT: not valid UTF-8.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                                      bool add_special_tokens) const = 0;
  // Text of a whole token sequence; bytes that are not UTF-8 become U+FFFD; control tokens give
  // nothing.
  virtual std::string Decode(const std::vector<int32_t>& tokens) const = 0;
  // The bytes that a token adds inside a text: "▁the" -> " the", "<0xE2>" -> one byte, control
  // tokens and ids outside the vocabulary -> nothing.
  virtual std::string TokenBytes(int32_t token) const = 0;
  // Bytes of text that one token stands for, at most; the spelling of a control token counts.
  virtual int64_t max_token_bytes() const = 0;
  virtual int32_t vocab_size() const = 0;
  virtual int32_t bos_token() const = 0;  // -1: none
  virtual int32_t eos_token() const = 0;  // -1: none
  // True if Encode puts a space in front of a text, which Decode takes away again.
  virtual bool adds_leading_space() const = 0;
  virtual const std::vector<ControlToken>& control_tokens() const = 0;
};

}  // namespace nsa
