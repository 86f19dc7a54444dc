#pragma once
// IncrementalDetokenizer: turns a stream of tokens into a stream of valid UTF-8.

#include <cstdint>
#include <string>

#include "base/utf8.h"
#include "engine/text/tokenizer.h"

namespace nsa {

// Bytes of an unfinished code point wait for the next token. All outputs of Push and Finish joined
// equal Tokenizer::Decode of the tokens (with at_text_start).
class IncrementalDetokenizer {
 public:
  // `at_text_start`: the space that the tokenizer puts in front of a text is dropped.
  IncrementalDetokenizer(const Tokenizer* tokenizer, bool at_text_start)
      : tokenizer_(tokenizer),
        drop_leading_space_(at_text_start && tokenizer->adds_leading_space()) {}

  // Text that became complete with this token; may be empty.
  std::string Push(int32_t token);
  // Bytes that never completed, as U+FFFD; call once at the end.
  std::string Finish() { return stream_.Finish(); }
  // True while bytes of an unfinished code point wait.
  bool has_pending() const { return stream_.has_pending(); }

 private:
  const Tokenizer* tokenizer_;
  bool drop_leading_space_;
  Utf8Stream stream_;
};

}  // namespace nsa
