#include "engine/text/jinja/token_cursor.h"

#include "absl/strings/str_cat.h"

namespace nsa::jinja {
namespace {

std::string Describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText:
      return "text";
    case TokenKind::kExprBegin:
      return "{{";
    case TokenKind::kExprEnd:
      return "}}";
    case TokenKind::kBlockBegin:
      return "{%";
    case TokenKind::kBlockEnd:
      return "%}";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return absl::StrCat("'", token.text, "'");
  }
}

}  // namespace

absl::Status TokenCursor::Unexpected(const std::string& what) const {
  return ErrorAt(line(), absl::StrCat("expected ", what, ", found ", Describe(Peek())));
}

absl::Status TokenCursor::ExpectOperator(const std::string& op) {
  if (TakeOperator(op)) return absl::OkStatus();
  return Unexpected(absl::StrCat("'", op, "'"));
}

absl::Status TokenCursor::ExpectName(const std::string& name) {
  if (TakeName(name)) return absl::OkStatus();
  return Unexpected(absl::StrCat("'", name, "'"));
}

absl::Status TokenCursor::Expect(TokenKind kind, const std::string& what) {
  if (Peek().kind != kind) return Unexpected(what);
  ++position_;
  return absl::OkStatus();
}

absl::Status DepthGuard::Check() const {
  if (cursor_->depth <= kMaxDepth) return absl::OkStatus();
  return ErrorAt(cursor_->line(), absl::StrCat("nested deeper than ", kMaxDepth));
}

}  // namespace nsa::jinja
