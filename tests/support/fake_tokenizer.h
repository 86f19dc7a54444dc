#pragma once
// FakeTokenizer: one token per byte, a BOS and an EOS, and whatever longer pieces a test wants, so
// that a test can choose how a text falls into tokens.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "base/utf8.h"
#include "engine/text/tokenizer.h"

namespace nsa {

class FakeTokenizer : public Tokenizer {
 public:
  static constexpr int32_t kBos = 256;
  static constexpr int32_t kEos = 257;
  static constexpr int32_t kFirstPiece = 258;
  static constexpr int64_t kMaxTokenBytes = 8;

  std::function<void(std::string_view text)> on_encode;  // to be set before it is used

  // Piece i is token kFirstPiece + i.
  explicit FakeTokenizer(std::vector<std::string> pieces = {}) : pieces_(std::move(pieces)) {}

  // Byte by byte; pieces are not used.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              bool add_special_tokens) const override {
    if (on_encode) on_encode(text);
    if (!IsValidUtf8(text)) return absl::InvalidArgumentError("the text is not valid UTF-8");
    std::vector<int32_t> tokens;
    if (add_special_tokens) tokens.push_back(kBos);
    for (const char byte : text) tokens.push_back(static_cast<uint8_t>(byte));
    return tokens;
  }
  std::string Decode(const std::vector<int32_t>& tokens) const override {
    Utf8Stream stream;
    std::string text;
    for (const int32_t token : tokens) text += stream.Push(TokenBytes(token));
    return text + stream.Finish();
  }
  std::string TokenBytes(int32_t token) const override {
    if (token >= 0 && token < kBos) return std::string(1, static_cast<char>(token));
    return token >= kFirstPiece && token < vocab_size() ? pieces_[token - kFirstPiece] : "";
  }
  int64_t max_token_bytes() const override { return kMaxTokenBytes; }
  int32_t vocab_size() const override { return kFirstPiece + static_cast<int32_t>(pieces_.size()); }
  int32_t bos_token() const override { return kBos; }
  int32_t eos_token() const override { return kEos; }
  bool adds_leading_space() const override { return false; }
  const std::vector<ControlToken>& control_tokens() const override { return control_tokens_; }

 private:
  const std::vector<std::string> pieces_;
  const std::vector<ControlToken> control_tokens_ = {{"<s>", kBos}, {"</s>", kEos}};
};

}  // namespace nsa
