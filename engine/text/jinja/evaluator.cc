#include "engine/text/jinja/evaluator.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/lexer.h"
#include "engine/text/jinja/operators.h"

namespace nsa::jinja {
namespace {

// Adds the line to an error that a value operation gave.
absl::Status AtLine(int line, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("line ", line, ": ", status.message()));
}

// Recursion is bounded: the parser limits the depth of the tree (kMaxDepth).
class Evaluator {
 public:
  Evaluator(Value::Dict variables, const RenderLimits& limits) : limits_(limits) {
    scopes_.push_back(std::move(variables));
  }

  absl::Status Run(const Block& block);
  std::string TakeOutput() { return std::move(output_); }

 private:
  absl::Status RunStatement(const Statement& statement);
  absl::Status RunSet(const Statement& statement);
  absl::Status RunFor(const Statement& statement);
  absl::Status RunIf(const Statement& statement);
  absl::Status Print(int line, std::string_view text);

  absl::StatusOr<Value> Evaluate(const Expression& expression);
  absl::StatusOr<Value> EvaluateKind(const Expression& expression);
  absl::StatusOr<Value> EvaluateOperator(const Expression& expression);
  absl::StatusOr<Value> EvaluateBinary(const Expression& expression);
  absl::StatusOr<Value> EvaluateUnary(const Expression& expression);
  absl::StatusOr<Value> EvaluateSlice(const Expression& expression);
  absl::StatusOr<Value> EvaluateConditional(const Expression& expression);
  absl::StatusOr<Value> EvaluateBuiltin(const Expression& expression, const Builtin& builtin);
  absl::StatusOr<Value> EvaluateList(const Expression& expression);
  absl::StatusOr<Value> EvaluateNamespace(const Expression& expression);
  absl::StatusOr<Value> EvaluateRaise(const Expression& expression);
  Value Lookup(const std::string& name) const;
  absl::Status CountStep(int line);

  const RenderLimits limits_;
  std::vector<Value::Dict> scopes_;  // the globals, then one per running loop body
  std::string output_;
  int64_t num_steps_ = 0;
};

absl::Status Evaluator::CountStep(int line) {
  if (++num_steps_ <= limits_.max_steps) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("line ", line, ": more than ", limits_.max_steps, " steps"));
}

absl::Status Evaluator::Print(int line, std::string_view text) {
  output_ += text;
  if (static_cast<int64_t>(output_.size()) <= limits_.max_output_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("line ", line, ": more than ", limits_.max_output_bytes, " bytes of output"));
}

absl::Status Evaluator::Run(const Block& block) {
  for (const Statement& statement : block) NSA_RETURN_IF_ERROR(RunStatement(statement));
  return absl::OkStatus();
}

absl::Status Evaluator::RunStatement(const Statement& statement) {
  NSA_RETURN_IF_ERROR(CountStep(statement.line));
  switch (statement.kind) {
    case Statement::Kind::kText:
      return Print(statement.line, statement.text);
    case Statement::Kind::kSet:
      return RunSet(statement);
    case Statement::Kind::kFor:
      return RunFor(statement);
    case Statement::Kind::kIf:
      return RunIf(statement);
    case Statement::Kind::kOutput:
      break;
  }
  NSA_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expression));
  const absl::StatusOr<std::string> text = value.ToText();
  if (!text.ok()) return AtLine(statement.line, text.status());
  return Print(statement.line, *text);
}

absl::Status Evaluator::RunSet(const Statement& statement) {
  NSA_ASSIGN_OR_RETURN(Value value, Evaluate(*statement.expression));
  if (statement.attribute.empty()) {
    scopes_.back()[statement.text] = std::move(value);
    return absl::OkStatus();
  }
  const Value target = Lookup(statement.text);
  if (!target.is_dict()) {
    return ErrorAt(statement.line, absl::StrCat("'", statement.text, "' is no namespace"));
  }
  // A namespace that holds a dict could hold itself, and would then never be freed.
  if (value.is_dict() || value.is_list()) {
    return ErrorAt(statement.line, "lists and dicts in a namespace are not supported");
  }
  target.as_dict()[statement.attribute] = std::move(value);
  return absl::OkStatus();
}

absl::Status Evaluator::RunFor(const Statement& statement) {
  NSA_ASSIGN_OR_RETURN(const Value iterable, Evaluate(*statement.expression));
  if (!iterable.is_list()) {
    return ErrorAt(statement.line, absl::StrCat("a loop needs a list, got ", iterable.TypeName()));
  }
  const auto num_items = static_cast<int64_t>(iterable.as_list().size());
  for (int64_t i = 0; i < num_items; ++i) {
    Value::Dict scope;
    scope[statement.text] = iterable.as_list()[i];
    scope["loop"] = Value(Value::Dict{{"index0", Value(i)},
                                      {"index", Value(i + 1)},
                                      {"first", Value(i == 0)},
                                      {"last", Value(i + 1 == num_items)},
                                      {"length", Value(num_items)}});
    scopes_.push_back(std::move(scope));
    const absl::Status status = Run(statement.bodies[0]);
    scopes_.pop_back();
    NSA_RETURN_IF_ERROR(status);
    NSA_RETURN_IF_ERROR(CountStep(statement.line));
  }
  return absl::OkStatus();
}

absl::Status Evaluator::RunIf(const Statement& statement) {
  for (size_t i = 0; i < statement.conditions.size(); ++i) {
    NSA_ASSIGN_OR_RETURN(const Value condition, Evaluate(*statement.conditions[i]));
    if (condition.Truthy()) return Run(statement.bodies[i]);
  }
  const bool has_else = statement.bodies.size() > statement.conditions.size();
  return has_else ? Run(statement.bodies.back()) : absl::OkStatus();
}

Value Evaluator::Lookup(const std::string& name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto it = scope->find(name);
    if (it != scope->end()) return it->second;
  }
  return Value();
}

absl::StatusOr<Value> Evaluator::Evaluate(const Expression& expression) {
  NSA_ASSIGN_OR_RETURN(Value value, EvaluateKind(expression));
  // Long strings and lists cost what copying them costs.
  if (value.is_string()) num_steps_ += static_cast<int64_t>(value.as_string().size()) / 256;
  if (value.is_list()) num_steps_ += static_cast<int64_t>(value.as_list().size()) / 16;
  NSA_RETURN_IF_ERROR(CountStep(expression.line));
  return value;
}

absl::StatusOr<Value> Evaluator::EvaluateKind(const Expression& expression) {
  switch (expression.kind) {
    case Expression::Kind::kLiteral:
      return expression.literal;
    case Expression::Kind::kVariable:
      return Lookup(expression.name);
    case Expression::Kind::kList:
      return EvaluateList(expression);
    case Expression::Kind::kNamespace:
      return EvaluateNamespace(expression);
    case Expression::Kind::kRaise:
      return EvaluateRaise(expression);
    case Expression::Kind::kConditional:
      return EvaluateConditional(expression);
    case Expression::Kind::kMethod:
      return EvaluateBuiltin(expression, *FindMethod(expression.name));
    case Expression::Kind::kFilter:
      return EvaluateBuiltin(expression, *FindFilter(expression.name));
    default:
      return EvaluateOperator(expression);
  }
}

absl::StatusOr<Value> Evaluator::EvaluateOperator(const Expression& expression) {
  if (expression.kind == Expression::Kind::kBinary) return EvaluateBinary(expression);
  if (expression.kind == Expression::Kind::kSlice) return EvaluateSlice(expression);
  NSA_ASSIGN_OR_RETURN(const Value operand, Evaluate(*expression.operands[0]));
  absl::StatusOr<Value> result = Value();
  if (expression.kind == Expression::Kind::kTest) {
    result = Value(FindTest(expression.name)->holds(operand));
  } else if (expression.kind == Expression::Kind::kUnary) {
    result = expression.name == "not" ? absl::StatusOr<Value>(Value(!operand.Truthy()))
                                      : ApplyBinary("-", Value(int64_t{0}), operand);
  } else if (expression.kind == Expression::Kind::kAttribute) {
    result = GetAttribute(operand, expression.name);
  } else {
    NSA_ASSIGN_OR_RETURN(const Value index, Evaluate(*expression.operands[1]));
    result = GetItem(operand, index);
  }
  return result.ok() ? result : AtLine(expression.line, result.status());
}

absl::StatusOr<Value> Evaluator::EvaluateBinary(const Expression& expression) {
  NSA_ASSIGN_OR_RETURN(Value left, Evaluate(*expression.operands[0]));
  // As in Python, `and` and `or` give one of their operands and may leave the right one alone.
  if (expression.name == "and" && !left.Truthy()) return left;
  if (expression.name == "or" && left.Truthy()) return left;
  NSA_ASSIGN_OR_RETURN(Value right, Evaluate(*expression.operands[1]));
  if (expression.name == "and" || expression.name == "or") return right;
  absl::StatusOr<Value> result = ApplyBinary(expression.name, left, right);
  return result.ok() ? result : AtLine(expression.line, result.status());
}

absl::StatusOr<Value> Evaluator::EvaluateSlice(const Expression& expression) {
  NSA_ASSIGN_OR_RETURN(const Value object, Evaluate(*expression.operands[0]));
  SliceBounds bounds;
  std::optional<int64_t>* const parts[] = {&bounds.start, &bounds.stop, &bounds.step};
  for (int i = 0; i < 3; ++i) {
    if (expression.operands[i + 1] == nullptr) continue;
    NSA_ASSIGN_OR_RETURN(const Value bound, Evaluate(*expression.operands[i + 1]));
    if (!bound.is_int()) return ErrorAt(expression.line, "a slice's bounds are numbers");
    *parts[i] = bound.as_int();
  }
  absl::StatusOr<Value> result = GetSlice(object, bounds);
  return result.ok() ? result : AtLine(expression.line, result.status());
}

absl::StatusOr<Value> Evaluator::EvaluateConditional(const Expression& expression) {
  NSA_ASSIGN_OR_RETURN(const Value condition, Evaluate(*expression.operands[0]));
  const ExpressionPtr& chosen = expression.operands[condition.Truthy() ? 1 : 2];
  return chosen == nullptr ? absl::StatusOr<Value>(Value()) : Evaluate(*chosen);
}

absl::StatusOr<Value> Evaluator::EvaluateBuiltin(const Expression& expression,
                                                 const Builtin& builtin) {
  NSA_ASSIGN_OR_RETURN(const Value self, Evaluate(*expression.operands[0]));
  Arguments arguments;
  for (size_t i = 1; i < expression.operands.size(); ++i) {
    NSA_ASSIGN_OR_RETURN(Value argument, Evaluate(*expression.operands[i]));
    arguments.push_back(std::move(argument));
  }
  absl::StatusOr<Value> result = builtin.apply(self, arguments);
  if (result.ok()) return result;
  return absl::Status(result.status().code(),
                      absl::StrCat("line ", expression.line, ": '", expression.name, "' ",
                                   result.status().message()));
}

absl::StatusOr<Value> Evaluator::EvaluateList(const Expression& expression) {
  Value::List items;
  for (const ExpressionPtr& operand : expression.operands) {
    NSA_ASSIGN_OR_RETURN(Value item, Evaluate(*operand));
    items.push_back(std::move(item));
  }
  return Value(std::move(items));
}

absl::StatusOr<Value> Evaluator::EvaluateNamespace(const Expression& expression) {
  Value::Dict attributes;
  for (size_t i = 0; i < expression.keywords.size(); ++i) {
    NSA_ASSIGN_OR_RETURN(attributes[expression.keywords[i]], Evaluate(*expression.operands[i]));
  }
  return Value(std::move(attributes));
}

absl::StatusOr<Value> Evaluator::EvaluateRaise(const Expression& expression) {
  NSA_ASSIGN_OR_RETURN(const Value message, Evaluate(*expression.operands[0]));
  NSA_ASSIGN_OR_RETURN(const std::string text, message.ToText());
  return absl::InvalidArgumentError(text);
}

}  // namespace

absl::StatusOr<std::string> Render(const Block& program, Value::Dict variables,
                                   const RenderLimits& limits) {
  Evaluator evaluator(std::move(variables), limits);
  NSA_RETURN_IF_ERROR(evaluator.Run(program));
  return evaluator.TakeOutput();
}

}  // namespace nsa::jinja
