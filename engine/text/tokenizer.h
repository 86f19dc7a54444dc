#pragma once
// Tokenizer: text <-> token ids (SentencePiece), and the incremental detokenizer that never splits
// a code point. Thread-safe after loading.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace nsa {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // add_special_tokens puts the model's BOS (if it uses one) in front. INVALID_ARGUMENT: not valid
  // UTF-8.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                                      bool add_special_tokens) const = 0;
  // Text of a whole token sequence; bytes that are not UTF-8 become U+FFFD; control tokens give
  // nothing.
  virtual std::string Decode(const std::vector<int32_t>& tokens) const = 0;
  // The bytes that a token adds inside a text: "▁the" -> " the", "<0xE2>" -> one byte, control
  // tokens -> nothing.
  virtual std::string TokenBytes(int32_t token) const = 0;
  virtual int32_t vocab_size() const = 0;
  virtual int32_t bos_token() const = 0;  // -1: none
  virtual int32_t eos_token() const = 0;  // -1: none
};

// Loads tokenizer.model; `add_bos` comes from tokenizer_config.json.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePieceTokenizer(const std::string& path,
                                                                      bool add_bos);

// Turns a stream of tokens into a stream of valid UTF-8: bytes of an unfinished code point wait for
// the next token.
class IncrementalDetokenizer {
 public:
  // `at_text_start`: the first token's leading space (SentencePiece's dummy prefix) is dropped.
  IncrementalDetokenizer(const Tokenizer* tokenizer, bool at_text_start);

  // Text that became complete with this token; may be empty.
  std::string Push(int32_t token);
  // Bytes that never completed, as U+FFFD; call once at the end.
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  bool drop_leading_space_;
  std::string pending_;  // bytes of a code point that is not yet complete
};

}  // namespace nsa
