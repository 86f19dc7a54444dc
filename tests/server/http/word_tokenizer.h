#pragma once
// WordTokenizer: a vocabulary of 100 tokens that a test can read. Token i is " w<i>"; a few are
// single bytes of "é" and one is a long word; two are control tokens.

#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/utf8.h"
#include "engine/text/tokenizer.h"

namespace nsa {

class WordTokenizer : public Tokenizer {
 public:
  static constexpr int32_t kVocabSize = 100;
  static constexpr int32_t kLead = 90, kTail = 91;  // bytes of U+00E9
  static constexpr int32_t kBos = 98, kEos = 99;

  // Words "w<i>" are their number, any other word the token of its length.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              bool add_special_tokens) const override {
    std::vector<int32_t> tokens;
    if (add_special_tokens) tokens.push_back(kBos);
    const std::vector<std::string> words =
        absl::StrSplit(std::string(text), absl::ByAnyChar(" \n"), absl::SkipEmpty());
    for (const std::string& word : words) {
      int32_t number = 0;
      const bool is_number = word[0] == 'w' && absl::SimpleAtoi(word.substr(1), &number);
      tokens.push_back((is_number ? number : static_cast<int32_t>(word.size())) % kLead);
    }
    return tokens;
  }
  std::string Decode(const std::vector<int32_t>& tokens) const override {
    Utf8Stream stream;
    std::string text;
    for (const int32_t token : tokens) text += stream.Push(TokenBytes(token));
    return text + stream.Finish();
  }
  std::string TokenBytes(int32_t token) const override {
    if (token < 0 || token >= kBos) return "";
    if (token == kLead) return "\xC3";
    if (token == kTail) return "\xA9";
    return absl::StrCat(" w", token);
  }
  // A word is any number of letters; this bounds what a test's context takes.
  int64_t max_token_bytes() const override { return 64; }
  int32_t vocab_size() const override { return kVocabSize; }
  int32_t bos_token() const override { return kBos; }
  int32_t eos_token() const override { return kEos; }
  bool adds_leading_space() const override { return false; }
  const std::vector<ControlToken>& control_tokens() const override { return control_tokens_; }

 private:
  const std::vector<ControlToken> control_tokens_ = {{"<s>", kBos}, {"</s>", kEos}};
};

}  // namespace nsa
