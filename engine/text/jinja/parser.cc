#include "engine/text/jinja/parser.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/text/jinja/expression_parser.h"
#include "engine/text/jinja/token_cursor.h"

namespace nsa::jinja {
namespace {

using Kind = Statement::Kind;

class StatementParser {
 public:
  explicit StatementParser(std::vector<Token> tokens) : cursor_(std::move(tokens)) {}

  absl::StatusOr<Block> Template();

 private:
  absl::StatusOr<Block> ParseBlock();
  absl::StatusOr<Statement> ParseStatement();
  absl::StatusOr<Statement> ParseOutput();
  absl::StatusOr<Statement> ParseSet(int line);
  absl::StatusOr<Statement> ParseFor(int line);
  absl::StatusOr<Statement> ParseIf(int line);
  absl::Status ParseCondition(Statement* statement);
  absl::Status ParseBody(Statement* statement);
  absl::Status TakeEndTag(const std::string& name);
  bool AtBranchTag() const;

  TokenCursor cursor_;
};

// A tag that ends a block belongs to the statement around it.
bool IsBranchName(std::string_view name) {
  return name == "endfor" || name == "endif" || name == "elif" || name == "else";
}

bool StatementParser::AtBranchTag() const {
  return cursor_.Peek().kind == TokenKind::kBlockBegin && IsBranchName(cursor_.PeekSecond().text);
}

absl::StatusOr<Block> StatementParser::Template() {
  NSA_ASSIGN_OR_RETURN(Block block, ParseBlock());
  if (cursor_.Peek().kind != TokenKind::kEnd) {
    return ErrorAt(cursor_.line(),
                   absl::StrCat("'", cursor_.PeekSecond().text, "' without its beginning"));
  }
  return block;
}

absl::StatusOr<Block> StatementParser::ParseBlock() {
  DepthGuard guard(&cursor_);
  NSA_RETURN_IF_ERROR(guard.Check());
  Block block;
  while (cursor_.Peek().kind != TokenKind::kEnd && !AtBranchTag()) {
    NSA_ASSIGN_OR_RETURN(Statement statement, ParseStatement());
    block.push_back(std::move(statement));
  }
  return block;
}

absl::StatusOr<Statement> StatementParser::ParseStatement() {
  if (cursor_.Peek().kind == TokenKind::kText) {
    Token token = cursor_.Take();
    Statement text{.kind = Kind::kText, .line = token.line};
    text.text = std::move(token.text);
    return text;
  }
  if (cursor_.Peek().kind == TokenKind::kExprBegin) return ParseOutput();
  NSA_RETURN_IF_ERROR(cursor_.Expect(TokenKind::kBlockBegin, "{%"));
  const int line = cursor_.line();
  if (cursor_.TakeName("set")) return ParseSet(line);
  if (cursor_.TakeName("for")) return ParseFor(line);
  if (cursor_.TakeName("if")) return ParseIf(line);
  return ErrorAt(line, absl::StrCat("statement '", cursor_.Peek().text, "' is not supported"));
}

absl::StatusOr<Statement> StatementParser::ParseOutput() {
  Statement output{.kind = Kind::kOutput, .line = cursor_.Take().line};
  NSA_ASSIGN_OR_RETURN(output.expression, ParseExpression(&cursor_));
  NSA_RETURN_IF_ERROR(cursor_.Expect(TokenKind::kExprEnd, "}}"));
  return output;
}

absl::StatusOr<Statement> StatementParser::ParseSet(int line) {
  if (cursor_.Peek().kind != TokenKind::kName) return cursor_.Unexpected("a name");
  Statement set{.kind = Kind::kSet, .line = line};
  set.text = cursor_.Take().text;
  if (cursor_.TakeOperator(".")) {
    if (cursor_.Peek().kind != TokenKind::kName) return cursor_.Unexpected("a name");
    set.attribute = cursor_.Take().text;
  }
  NSA_RETURN_IF_ERROR(cursor_.ExpectOperator("="));
  NSA_ASSIGN_OR_RETURN(set.expression, ParseExpression(&cursor_));
  NSA_RETURN_IF_ERROR(cursor_.Expect(TokenKind::kBlockEnd, "%}"));
  return set;
}

absl::StatusOr<Statement> StatementParser::ParseFor(int line) {
  if (cursor_.Peek().kind != TokenKind::kName) return cursor_.Unexpected("a name");
  Statement loop{.kind = Kind::kFor, .line = line};
  loop.text = cursor_.Take().text;
  if (cursor_.IsOperator(",")) return ErrorAt(line, "loops over pairs are not supported");
  NSA_RETURN_IF_ERROR(cursor_.ExpectName("in"));
  NSA_ASSIGN_OR_RETURN(loop.expression, ParseExpression(&cursor_));
  NSA_RETURN_IF_ERROR(ParseBody(&loop));
  NSA_RETURN_IF_ERROR(TakeEndTag("endfor"));
  return loop;
}

absl::StatusOr<Statement> StatementParser::ParseIf(int line) {
  Statement branches{.kind = Kind::kIf, .line = line};
  NSA_RETURN_IF_ERROR(ParseCondition(&branches));
  while (true) {
    NSA_RETURN_IF_ERROR(ParseBody(&branches));
    if (cursor_.PeekSecond().text != "elif") break;
    cursor_.Take();
    cursor_.Take();
    NSA_RETURN_IF_ERROR(ParseCondition(&branches));
  }
  if (cursor_.PeekSecond().text == "else") {
    cursor_.Take();
    cursor_.Take();
    NSA_RETURN_IF_ERROR(ParseBody(&branches));
  }
  NSA_RETURN_IF_ERROR(TakeEndTag("endif"));
  return branches;
}

absl::Status StatementParser::ParseCondition(Statement* statement) {
  NSA_ASSIGN_OR_RETURN(ExpressionPtr condition, ParseExpression(&cursor_));
  statement->conditions.push_back(std::move(condition));
  return absl::OkStatus();
}

// The end of the opening tag and the statements up to the next branch tag, which is left alone.
absl::Status StatementParser::ParseBody(Statement* statement) {
  NSA_RETURN_IF_ERROR(cursor_.Expect(TokenKind::kBlockEnd, "%}"));
  NSA_ASSIGN_OR_RETURN(Block body, ParseBlock());
  statement->bodies.push_back(std::move(body));
  return absl::OkStatus();
}

absl::Status StatementParser::TakeEndTag(const std::string& name) {
  NSA_RETURN_IF_ERROR(cursor_.Expect(TokenKind::kBlockBegin, absl::StrCat("{% ", name, " %}")));
  NSA_RETURN_IF_ERROR(cursor_.ExpectName(name));
  return cursor_.Expect(TokenKind::kBlockEnd, "%}");
}

}  // namespace

absl::StatusOr<Block> Parse(std::string_view source) {
  NSA_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return StatementParser(std::move(tokens)).Template();
}

}  // namespace nsa::jinja
