#pragma once
// TokenCursor: walks over the tokens of a template; shared by the parsers of statements and
// expressions.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "engine/text/jinja/lexer.h"

namespace nsa::jinja {

// Deepest nesting of statements and expressions in a template.
inline constexpr int kMaxDepth = 100;

class TokenCursor {
 public:
  // `tokens` ends with kEnd.
  explicit TokenCursor(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& Peek() const { return tokens_[position_]; }
  // The token after the next one; kEnd past the end.
  const Token& PeekSecond() const {
    return tokens_[position_ + 1 < tokens_.size() ? position_ + 1 : position_];
  }
  Token Take() { return Peek().kind == TokenKind::kEnd ? Peek() : tokens_[position_++]; }
  int line() const { return Peek().line; }

  bool IsOperator(std::string_view op) const {
    return Peek().kind == TokenKind::kOperator && Peek().text == op;
  }
  bool IsName(std::string_view name) const {
    return Peek().kind == TokenKind::kName && Peek().text == name;
  }
  bool TakeOperator(std::string_view op) {
    if (!IsOperator(op)) return false;
    ++position_;
    return true;
  }
  bool TakeName(std::string_view name) {
    if (!IsName(name)) return false;
    ++position_;
    return true;
  }
  absl::Status ExpectOperator(const std::string& op);
  absl::Status ExpectName(const std::string& name);
  absl::Status Expect(TokenKind kind, const std::string& what);
  // "expected WHAT, found ...", at the current line.
  absl::Status Unexpected(const std::string& what) const;

  // Nesting depth, kept by DepthGuard.
  int depth = 0;

 private:
  std::vector<Token> tokens_;
  size_t position_ = 0;
};

// Counts one level of nesting while it lives.
class DepthGuard {
 public:
  explicit DepthGuard(TokenCursor* cursor) : cursor_(cursor) { ++cursor_->depth; }
  ~DepthGuard() { --cursor_->depth; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;
  // INVALID_ARGUMENT if the template nests too deep here.
  absl::Status Check() const;

 private:
  TokenCursor* cursor_;
};

}  // namespace nsa::jinja
