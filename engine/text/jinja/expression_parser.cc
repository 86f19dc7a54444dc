#include "engine/text/jinja/expression_parser.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/text/jinja/builtins.h"

namespace nsa::jinja {
namespace {

using Kind = Expression::Kind;
using Result = absl::StatusOr<ExpressionPtr>;

constexpr std::array<std::string_view, 5> kLoopAttributes = {"index", "index0", "first", "last",
                                                             "length"};
constexpr std::array<std::string_view, 6> kComparisons = {"==", "!=", "<=", ">=", "<", ">"};

ExpressionPtr Make(Kind kind, int line, std::string name = {}) {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = line;
  expression->name = std::move(name);
  return expression;
}

ExpressionPtr MakeLiteral(int line, Value value) {
  ExpressionPtr literal = Make(Kind::kLiteral, line);
  literal->literal = std::move(value);
  return literal;
}

ExpressionPtr MakeBinary(int line, std::string op, ExpressionPtr left, ExpressionPtr right) {
  ExpressionPtr binary = Make(Kind::kBinary, line, std::move(op));
  binary->Add(std::move(left));
  binary->Add(std::move(right));
  return binary;
}

// Chains such as a + b + c ... grow a tall tree without nesting; the evaluator recurses over both.
absl::Status CheckHeight(const Expression& expression) {
  if (expression.height <= kMaxDepth) return absl::OkStatus();
  return ErrorAt(expression.line, absl::StrCat("an expression deeper than ", kMaxDepth));
}

class Parser {
 public:
  explicit Parser(TokenCursor* cursor) : cursor_(*cursor) {}

  Result Conditional();

 private:
  using Level = Result (Parser::*)();

  Result LeftAssociative(std::initializer_list<std::string_view> operators, Level operand);
  Result NamedBinary(std::string_view name, Level operand);
  Result Or() { return NamedBinary("or", &Parser::And); }
  Result And() { return NamedBinary("and", &Parser::Not); }
  Result Not();
  Result Comparison();
  Result Sum() { return LeftAssociative({"+", "-"}, &Parser::Concatenation); }
  Result Concatenation() { return LeftAssociative({"~"}, &Parser::Product); }
  Result Product() { return LeftAssociative({"*", "//", "%"}, &Parser::Unary); }
  Result Unary();
  Result Primary();
  Result List();
  Result NameOrCall();
  Result RaiseCall(int line);
  Result NamespaceCall(int line);
  Result Postfix(ExpressionPtr expression);
  Result Dot(ExpressionPtr object);
  Result Subscript(ExpressionPtr object);
  Result Filter(ExpressionPtr input);
  Result IsTest(ExpressionPtr subject);
  absl::Status ArgumentsInto(Expression* call);
  absl::Status CheckArguments(const Expression& call, const Builtin& builtin) const;
  std::string TakeComparison();

  TokenCursor& cursor_;
};

Result Parser::Conditional() {
  DepthGuard guard(&cursor_);
  NSA_RETURN_IF_ERROR(guard.Check());
  const int line = cursor_.line();
  NSA_ASSIGN_OR_RETURN(ExpressionPtr value, Or());
  if (!cursor_.TakeName("if")) return value;
  ExpressionPtr conditional = Make(Kind::kConditional, line);
  NSA_ASSIGN_OR_RETURN(ExpressionPtr condition, Or());
  conditional->Add(std::move(condition));
  conditional->Add(std::move(value));
  ExpressionPtr otherwise;
  if (cursor_.TakeName("else")) {
    NSA_ASSIGN_OR_RETURN(otherwise, Conditional());
  }
  conditional->Add(std::move(otherwise));
  return conditional;
}

Result Parser::LeftAssociative(std::initializer_list<std::string_view> operators, Level operand) {
  NSA_ASSIGN_OR_RETURN(ExpressionPtr left, (this->*operand)());
  while (std::any_of(operators.begin(), operators.end(),
                     [&](std::string_view op) { return cursor_.IsOperator(op); })) {
    const Token op = cursor_.Take();
    NSA_ASSIGN_OR_RETURN(ExpressionPtr right, (this->*operand)());
    left = MakeBinary(op.line, op.text, std::move(left), std::move(right));
    NSA_RETURN_IF_ERROR(CheckHeight(*left));
  }
  return left;
}

Result Parser::NamedBinary(std::string_view name, Level operand) {
  NSA_ASSIGN_OR_RETURN(ExpressionPtr left, (this->*operand)());
  while (cursor_.IsName(name)) {
    const int line = cursor_.Take().line;
    NSA_ASSIGN_OR_RETURN(ExpressionPtr right, (this->*operand)());
    left = MakeBinary(line, std::string(name), std::move(left), std::move(right));
    NSA_RETURN_IF_ERROR(CheckHeight(*left));
  }
  return left;
}

Result Parser::Not() {
  if (!cursor_.IsName("not")) return Comparison();
  DepthGuard guard(&cursor_);
  NSA_RETURN_IF_ERROR(guard.Check());
  ExpressionPtr negation = Make(Kind::kUnary, cursor_.Take().line, "not");
  NSA_ASSIGN_OR_RETURN(ExpressionPtr operand, Not());
  negation->Add(std::move(operand));
  return negation;
}

// The comparison operator at the cursor, or nothing.
std::string Parser::TakeComparison() {
  if (cursor_.TakeName("in")) return "in";
  if (cursor_.IsName("not") && cursor_.PeekSecond().kind == TokenKind::kName &&
      cursor_.PeekSecond().text == "in") {
    cursor_.Take();
    cursor_.Take();
    return "not in";
  }
  for (const std::string_view op : kComparisons) {
    if (cursor_.TakeOperator(op)) return std::string(op);
  }
  return {};
}

Result Parser::Comparison() {
  const int line = cursor_.line();
  NSA_ASSIGN_OR_RETURN(ExpressionPtr left, Sum());
  std::string op = TakeComparison();
  if (op.empty()) return left;
  NSA_ASSIGN_OR_RETURN(ExpressionPtr right, Sum());
  if (!TakeComparison().empty()) return ErrorAt(line, "chained comparisons are not supported");
  return MakeBinary(line, std::move(op), std::move(left), std::move(right));
}

Result Parser::Unary() {
  if (cursor_.IsOperator("-")) {
    DepthGuard guard(&cursor_);
    NSA_RETURN_IF_ERROR(guard.Check());
    ExpressionPtr negation = Make(Kind::kUnary, cursor_.Take().line, "-");
    NSA_ASSIGN_OR_RETURN(ExpressionPtr operand, Unary());
    negation->Add(std::move(operand));
    return negation;
  }
  NSA_ASSIGN_OR_RETURN(ExpressionPtr primary, Primary());
  return Postfix(std::move(primary));
}

Result Parser::Primary() {
  const int line = cursor_.line();
  if (cursor_.Peek().kind == TokenKind::kName) return NameOrCall();
  if (cursor_.Peek().kind == TokenKind::kInt)
    return MakeLiteral(line, Value(cursor_.Take().number));
  if (cursor_.Peek().kind == TokenKind::kString) {
    std::string text;  // neighbouring literals are one string, as in Python
    while (cursor_.Peek().kind == TokenKind::kString) text += cursor_.Take().text;
    return MakeLiteral(line, Value(std::move(text)));
  }
  if (cursor_.TakeOperator("[")) return List();
  if (cursor_.TakeOperator("(")) {
    NSA_ASSIGN_OR_RETURN(ExpressionPtr inner, Conditional());
    if (cursor_.IsOperator(",")) return ErrorAt(line, "tuples are not supported");
    NSA_RETURN_IF_ERROR(cursor_.ExpectOperator(")"));
    return inner;
  }
  if (cursor_.IsOperator("{")) return ErrorAt(line, "dict literals are not supported");
  return cursor_.Unexpected("an expression");
}

// Behind "[".
Result Parser::List() {
  ExpressionPtr list = Make(Kind::kList, cursor_.line());
  while (!cursor_.TakeOperator("]")) {
    NSA_ASSIGN_OR_RETURN(ExpressionPtr item, Conditional());
    list->Add(std::move(item));
    if (!cursor_.IsOperator("]")) NSA_RETURN_IF_ERROR(cursor_.ExpectOperator(","));
  }
  return list;
}

Result Parser::NameOrCall() {
  const Token token = cursor_.Take();
  const std::string& name = token.text;
  if (name == "true" || name == "True") return MakeLiteral(token.line, Value(true));
  if (name == "false" || name == "False") return MakeLiteral(token.line, Value(false));
  if (name == "none" || name == "None") return MakeLiteral(token.line, Value(None{}));
  if (!cursor_.TakeOperator("(")) return Make(Kind::kVariable, token.line, name);
  if (name == "raise_exception") return RaiseCall(token.line);
  if (name == "namespace") return NamespaceCall(token.line);
  return ErrorAt(token.line, absl::StrCat("function '", name, "' is not supported"));
}

Result Parser::RaiseCall(int line) {
  ExpressionPtr raise = Make(Kind::kRaise, line);
  NSA_ASSIGN_OR_RETURN(ExpressionPtr message, Conditional());
  raise->Add(std::move(message));
  NSA_RETURN_IF_ERROR(cursor_.ExpectOperator(")"));
  return raise;
}

Result Parser::NamespaceCall(int line) {
  ExpressionPtr call = Make(Kind::kNamespace, line);
  while (!cursor_.TakeOperator(")")) {
    if (cursor_.Peek().kind != TokenKind::kName) return cursor_.Unexpected("a name");
    call->keywords.push_back(cursor_.Take().text);
    NSA_RETURN_IF_ERROR(cursor_.ExpectOperator("="));
    NSA_ASSIGN_OR_RETURN(ExpressionPtr value, Conditional());
    call->Add(std::move(value));
    if (!cursor_.IsOperator(")")) NSA_RETURN_IF_ERROR(cursor_.ExpectOperator(","));
  }
  return call;
}

Result Parser::Postfix(ExpressionPtr expression) {
  while (true) {
    Result next = ExpressionPtr();
    if (cursor_.TakeOperator(".")) {
      next = Dot(std::move(expression));
    } else if (cursor_.TakeOperator("[")) {
      next = Subscript(std::move(expression));
    } else if (cursor_.TakeOperator("|")) {
      next = Filter(std::move(expression));
    } else if (cursor_.TakeName("is")) {
      next = IsTest(std::move(expression));
    } else {
      return expression;
    }
    NSA_ASSIGN_OR_RETURN(expression, std::move(next));
    NSA_RETURN_IF_ERROR(CheckHeight(*expression));
  }
}

// Behind "(": the arguments up to ")".
absl::Status Parser::ArgumentsInto(Expression* call) {
  while (!cursor_.TakeOperator(")")) {
    NSA_ASSIGN_OR_RETURN(ExpressionPtr argument, Conditional());
    if (cursor_.IsOperator("=")) {
      return ErrorAt(call->line,
                     absl::StrCat("named arguments of '", call->name, "' are not supported"));
    }
    call->Add(std::move(argument));
    if (!cursor_.IsOperator(")")) NSA_RETURN_IF_ERROR(cursor_.ExpectOperator(","));
  }
  return absl::OkStatus();
}

absl::Status Parser::CheckArguments(const Expression& call, const Builtin& builtin) const {
  const int num_arguments = static_cast<int>(call.operands.size()) - 1;
  if (num_arguments >= builtin.min_arguments && num_arguments <= builtin.max_arguments) {
    return absl::OkStatus();
  }
  return ErrorAt(call.line,
                 absl::StrCat("'", call.name, "' does not take ", num_arguments, " arguments"));
}

Result Parser::Dot(ExpressionPtr object) {
  if (cursor_.Peek().kind != TokenKind::kName) return cursor_.Unexpected("a name");
  const Token name = cursor_.Take();
  const bool is_loop = object->kind == Kind::kVariable && object->name == "loop";
  if (is_loop && std::find(kLoopAttributes.begin(), kLoopAttributes.end(), name.text) ==
                     kLoopAttributes.end()) {
    return ErrorAt(name.line, absl::StrCat("'loop.", name.text, "' is not supported"));
  }
  if (!cursor_.TakeOperator("(")) {
    ExpressionPtr attribute = Make(Kind::kAttribute, name.line, name.text);
    attribute->Add(std::move(object));
    return attribute;
  }
  const Builtin* method = FindMethod(name.text);
  if (method == nullptr) {
    return ErrorAt(name.line, absl::StrCat("method '", name.text, "' is not supported"));
  }
  ExpressionPtr call = Make(Kind::kMethod, name.line, name.text);
  call->Add(std::move(object));
  NSA_RETURN_IF_ERROR(ArgumentsInto(call.get()));
  NSA_RETURN_IF_ERROR(CheckArguments(*call, *method));
  return call;
}

// Behind "[": an index or up to three slice bounds.
Result Parser::Subscript(ExpressionPtr object) {
  ExpressionPtr subscript = Make(Kind::kIndex, cursor_.line());
  subscript->Add(std::move(object));
  while (true) {
    ExpressionPtr bound;
    if (!cursor_.IsOperator(":") && !cursor_.IsOperator("]")) {
      NSA_ASSIGN_OR_RETURN(bound, Conditional());
    }
    subscript->Add(std::move(bound));
    if (!cursor_.TakeOperator(":")) break;
    subscript->kind = Kind::kSlice;
  }
  NSA_RETURN_IF_ERROR(cursor_.ExpectOperator("]"));
  const size_t num_bounds = subscript->operands.size() - 1;
  if (num_bounds > 3) return ErrorAt(subscript->line, "a slice has at most three parts");
  if (subscript->kind == Kind::kSlice) {
    subscript->operands.resize(4);
  } else if (subscript->operands[1] == nullptr) {
    return ErrorAt(subscript->line, "an index is missing");
  }
  return subscript;
}

Result Parser::Filter(ExpressionPtr input) {
  if (cursor_.Peek().kind != TokenKind::kName) return cursor_.Unexpected("a filter");
  const Token name = cursor_.Take();
  const Builtin* filter = FindFilter(name.text);
  if (filter == nullptr) {
    return ErrorAt(name.line, absl::StrCat("filter '", name.text, "' is not supported"));
  }
  ExpressionPtr call = Make(Kind::kFilter, name.line, name.text);
  call->Add(std::move(input));
  if (cursor_.TakeOperator("(")) NSA_RETURN_IF_ERROR(ArgumentsInto(call.get()));
  NSA_RETURN_IF_ERROR(CheckArguments(*call, *filter));
  return call;
}

// Behind "is".
Result Parser::IsTest(ExpressionPtr subject) {
  const bool is_negated = cursor_.TakeName("not");
  if (cursor_.Peek().kind != TokenKind::kName) return cursor_.Unexpected("a test");
  const Token name = cursor_.Take();
  if (FindTest(name.text) == nullptr) {
    return ErrorAt(name.line, absl::StrCat("test '", name.text, "' is not supported"));
  }
  ExpressionPtr test = Make(Kind::kTest, name.line, name.text);
  test->Add(std::move(subject));
  if (!is_negated) return test;
  ExpressionPtr negation = Make(Kind::kUnary, name.line, "not");
  negation->Add(std::move(test));
  return negation;
}

}  // namespace

Result ParseExpression(TokenCursor* cursor) { return Parser(cursor).Conditional(); }

}  // namespace nsa::jinja
